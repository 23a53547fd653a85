"""Print what is installed in the Python that runs this file, as JSON.

It is run by its path, in interpreters that have no kitlib: standard library only.

Each distribution is ``{"name", "version", "folder", "files", "requires"}``: ``files`` are paths below
``folder``, a site-packages; ``requires`` has the names of what it needs in this Python without extras.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import metadata


def _distributions() -> list[dict]:
    """The installed distributions; editable ones, and those that list no files, are left out."""
    found = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]
        if name and one.files and not _is_editable(one) and name.lower() not in found:
            found[name.lower()] = {
                "name": name,
                "version": one.version,
                "folder": os.path.abspath(str(one.locate_file(""))),
                "files": [str(path) for path in one.files],
                "requires": _requires(one),
            }
    return list(found.values())


def _is_editable(one: metadata.Distribution) -> bool:
    origin = json.loads(one.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _requires(one: metadata.Distribution) -> list[str]:
    names = []
    for line in one.requires or []:
        need, _, marker = line.partition(";")
        if _applies(marker.strip()):
            names.append(re.split(r"[^\w.-]", need.strip(), maxsplit=1)[0])
    return names


def _applies(marker: str) -> bool:
    """Whether a marker is true here without any extra; without ``packaging``, whether it names no extra."""
    if not marker:
        return True
    try:
        from packaging.markers import Marker
    except ImportError:
        return "extra" not in marker
    return Marker(marker).evaluate({"extra": ""})


if __name__ == "__main__":
    # This file's folder holds modules that are not part of that Python.
    del sys.path[0]
    json.dump({"python": sys.version.split()[0], "distributions": _distributions()}, sys.stdout)
