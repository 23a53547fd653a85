"""Kaggle's notebook image: the packages that it has, and wheels of those that a submission needs as well.

The list of packages, of mid-2026, is ``image.txt``, which names its source. The wheels hold what is installed
here, which is what the run was trained with; no network is needed. They are of pure Python, and so install
under whatever Python and torch the image will have by then.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from packaging.requirements import Requirement

import kitlib
from kitlib import files
from kitlib.errors import KitError
from kitlib.kaggle import detectron2_wheel

PYTHON = "3.12"
HOURS = 9.0  # time limit of a notebook with a GPU
#: Packages that the image is known to lack. The bundle brings those that the kit needs.
ABSENT = frozenset({"detectron2", "fvcore", "hydra-core", "iopath", "kitlib", "portalocker", "yacs"})

#: What a submission imports; it brings these two in any case.
_ROOTS = ("kitlib", "detectron2")
#: Files of a .dist-info that say how the distribution was installed here, or that ``pack`` makes.
_LOCAL = ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json")
_SKIPPED = ("__pycache__", ".pyc")


def normalised(name: str) -> str:
    """A project's name as indexes spell it (PEP 503).

    Example:
        >>> normalised("Typing_Extensions")
        'typing-extensions'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def packages() -> dict[str, str]:
    """The image's packages: normalised name -> version, "" where that is not known."""
    return dict(_packages())


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    text = (resources.files(__package__) / "image.txt").read_text(encoding="utf-8")
    lines = (line.partition("==") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((normalised(name), version) for name, _, version in lines)


# -------------------------------------------------------------------------------- wheels of what it lacks


def write_wheels(folder: Path) -> list[Path]:
    """Write the wheels of ``_lacking`` into ``folder``, and return their paths.

    Raises:
        KitError: one of the packages is not installed here, or is not of pure Python.
    """
    made = []
    for name in sorted(_lacking()):
        distribution = _installed(name)
        if name == "detectron2" and (_is_editable(distribution) or not _is_pure(distribution)):
            # The user has built it.
            made.append(detectron2_wheel.build(folder))
            continue
        path = folder / detectron2_wheel.file_name(distribution.name, distribution.version)
        with files.atomic(path) as temporary:
            temporary.write_bytes(repack(distribution))
        made.append(path)
    return made


def _lacking() -> set[str]:
    """Names of the distributions that the kit needs, directly or not, and the image lacks.

    Raises:
        KitError: one of them is not installed here.
    """
    found: set[str] = set()
    there, todo = packages(), list(_ROOTS)
    while todo:
        name = todo.pop()
        if name in found or (name in there and name not in _ROOTS):
            continue
        found.add(name)
        todo += _needs(_installed(name))
    return found


def repack(distribution: metadata.Distribution) -> bytes:
    """The wheel of an installed distribution, scripts and compiled caches left out.

    Raises:
        KitError: it is not of pure Python, or its list of files is gone.
    """
    if not _is_pure(distribution):
        raise KitError(
            f"{distribution.name} {distribution.version} is not of pure Python, so its wheel would work only "
            "where Python and system are the same; leave it to the image"
        )
    dist_info = detectron2_wheel.dist_info(distribution.name, distribution.version)
    contents = {}
    for path, data in _files(distribution).items():
        head, _, tail = path.partition("/")
        if head.endswith(".dist-info"):
            path = f"{dist_info}/{tail}"
        contents[path] = data
    return detectron2_wheel.pack(contents, dist_info)


def _files(distribution: metadata.Distribution) -> dict[str, bytes]:
    if distribution.files is None:
        raise KitError(f"{distribution.name} has no list of its files; install it again with pip")
    paths = {str(p): Path(p.locate()) for p in distribution.files if _is_wanted(str(p))}
    # An editable installation lists only a pointer to the checkout.
    if _is_editable(distribution):
        if distribution.name != kitlib.__name__:
            raise KitError(f"{distribution.name} is installed as editable; install a release of it")
        package = Path(kitlib.__file__).parent
        paths = {name: path for name, path in paths.items() if ".dist-info/" in name}
        for path in sorted(package.rglob("*")):
            name = path.relative_to(package.parent).as_posix()
            if path.is_file() and _is_wanted(name):
                paths[name] = path
    return {name: path.read_bytes() for name, path in paths.items()}


def _is_wanted(name: str) -> bool:
    if name.startswith("..") or any(mark in name for mark in _SKIPPED):
        return False
    return not (".dist-info/" in name and name.rpartition("/")[2] in _LOCAL)


def _is_editable(distribution: metadata.Distribution) -> bool:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _is_pure(distribution: metadata.Distribution) -> bool:
    names = [str(path) for path in distribution.files or ()]
    return not any(name.endswith((".so", ".pyd", ".dylib")) for name in names)


def _needs(distribution: metadata.Distribution) -> list[str]:
    """Names of the distributions that it requires on the image."""
    image = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    requirements = map(Requirement, distribution.requires or ())
    return [normalised(r.name) for r in requirements if not r.marker or r.marker.evaluate(image)]


def _installed(name: str) -> metadata.Distribution:
    for distribution in metadata.distributions(name=name):
        # An .egg-info that a build left in the checkout has no RECORD.
        if distribution.read_text("RECORD"):
            return distribution
    raise KitError(
        f"the submission needs {name}, which is not installed here; set the kit up again (./run_all.sh setup)"
    )
