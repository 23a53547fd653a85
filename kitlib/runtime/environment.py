"""Whether the Python that runs this has all that kitlib needs: exits 0 if so.

Run as ``python -m kitlib.runtime.environment``, which prints what is missing. Versions are read from the
installed packages' metadata and nothing heavy is imported: it takes a fraction of a second, and works in any
Python.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = {"mlflow"}  # extras that the set-up does not install; `--track mlflow` says what it lacks


def missing() -> list[str]:
    """What this Python lacks: kitlib itself (installed from this folder), or requirements of it."""
    kit = _installed_from(_ROOT)
    if kit is None:
        return ["kitlib"]
    extras = set(kit.metadata.get_all("Provides-Extra") or [])
    return unmet(kit.requires or [], extras - _LEFT_OUT)


def _installed_from(folder: Path) -> metadata.Distribution | None:
    """kitlib's metadata, where `pip install -e` put it in for ``folder``."""
    for kit in metadata.distributions(name="kitlib"):
        origin = json.loads(kit.read_text("direct_url.json") or "{}").get("url", "")
        if origin and Path(url2pathname(urlsplit(origin).path)).resolve() == folder:
            return kit
    return None


def unmet(requirements: Iterable[str], extras: Iterable[str] = ()) -> list[str]:
    """Those of the requirements (as in a wheel's metadata, with markers) that this Python does not meet."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging"]
    names = ("", *extras)
    lacking = []
    for need in map(Requirement, requirements):
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in names)
        if wanted and not _has(need.name, need.specifier):
            lacking.append(f"{need.name}{need.specifier}")
    return lacking


def _has(name: str, versions: SpecifierSet) -> bool:
    try:
        return versions.contains(metadata.version(name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    lacking = missing()
    print(", ".join(lacking))
    sys.exit(bool(lacking))
