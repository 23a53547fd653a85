"""The image files that a COCO file lists."""

from __future__ import annotations

import math
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from msgspec import Struct

from kitlib.data.config import Findings
from kitlib.data.images import SUFFIXES, first_few
from kitlib.data.layout import image_id
from kitlib.errors import KitError

# Characters of a name that a message quotes.
_QUOTED = 80
# Pixels. A file may claim any size, which then would be drawn.
_LONGEST = 1 << 17
# pycocotools counts the pixels of a run with 32 bits.
_MOST_PIXELS = (1 << 32) - 1
_OUTSIDE = "leads out of the folder of images"
Id = int | float | str


class ListedImage(Struct, gc=False):
    id: Id
    file_name: str
    height: int | float
    width: int | float


def key(name: Id) -> str:
    """An id for comparing: 7, 7.0, "7" and "007" are one, since programs write any of these in each list."""
    text = str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < _QUOTED else text


def find_images(
    path: Path, listed: Sequence[ListedImage], folder: Path | None, findings: Findings | None
) -> dict[str, Path]:
    """The file of each ``file_name``: that path in the folder, else a file of that name anywhere below it.

    Args:
        path: the COCO file, for messages.
        listed: its images.
        folder: where they are; None: they are not looked for, and a file is its ``file_name``.
        findings: where images are reported that cannot be used; None: the first one is raised.

    Raises:
        KitError: the folder is missing; without ``findings`` also: an image is missing, leads out of the
            folder, has an impossible size, or shares its id or name with another.
    """
    if folder is None:
        names = {image.file_name: Path(_inside(image.file_name)) for image in listed}
        _raise_first(path, None, {name: _OUTSIDE for name, place in names.items() if not place.name})
        return _checked_images(path, listed, names, findings, image_id)
    if not folder.is_dir():
        raise KitError(
            f"{folder}, the images of {path}, is not a folder; check the path or download the data again"
        )
    by_path, by_name = _images_below(folder)
    places: dict[str, Path] = {}
    faults: dict[str, str] = {}
    for name in dict.fromkeys(image.file_name for image in listed):
        inside = _inside(name)
        of_that_name = by_name.get(inside.rpartition("/")[2], [])
        if not inside:
            faults[name] = _OUTSIDE
        elif inside in by_path:
            places[name] = by_path[inside]
        elif not of_that_name:
            faults[name] = f"is not under {folder}"
        elif len(ending := [p for p in of_that_name if _composed(p.as_posix()).endswith(f"/{inside}")]) == 1:
            places[name] = ending[0]
        elif len(of_that_name) > 1 and findings is not None:
            faults[name] = f"is in several folders: {first_few(p.parent.name for p in of_that_name)}"
        else:
            places[name] = of_that_name[0]
    if findings is None:
        _raise_first(path, folder, faults)
    else:
        for name, fault in faults.items():
            findings.add(path, f"lists the image {name[:_QUOTED]!r}, which {fault}")
    return _checked_images(path, listed, places, findings)


def _composed(name: str) -> str:
    """A name with composed letters: a Mac's zip holds them decomposed."""
    return unicodedata.normalize("NFC", name)


def _inside(file_name: str) -> str:
    """A file name as a path below the folder of images; "" for one that leads out of it."""
    normal = _composed(file_name.replace("\\", "/"))
    parts = [part for part in PurePosixPath(normal).parts if part != "."]
    rooted = normal.startswith("/") or PureWindowsPath(file_name).drive
    return "" if rooted or ".." in parts or "\0" in normal else "/".join(parts)


def _images_below(folder: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """The images below a folder, by their path in it and by their name, both with composed letters."""
    by_path: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                place = Path(root, name)
                by_path[_composed(place.relative_to(folder).as_posix())] = place
                by_name[_composed(name)].append(place)
    return by_path, by_name


def _raise_first(path: Path, folder: Path | None, faults: Mapping[str, str]) -> None:
    missing = [name for name, fault in faults.items() if fault == f"is not under {folder}"]
    if missing:
        raise KitError(
            f"{len(missing)} of the images in {path} are not under {folder}: {first_few(missing)}; "
            "copy or download them, or take them out of the JSON file"
        )
    for name, fault in faults.items():
        raise KitError(f"{path} lists the image {name[:_QUOTED]!r}, which {fault}; correct its file_name")


def _checked_images(
    path: Path,
    listed: Sequence[ListedImage],
    places: dict[str, Path],
    findings: Findings | None,
    name_of: Callable[[Path], str] = lambda place: place.stem,
) -> dict[str, Path]:
    """The places without images of an impossible size or of another's id; refused where nothing is reported.

    Without ``findings``, two images of one name are refused as well.
    """
    by_id: dict[str, str] = {}
    by_name: dict[str, Path] = {}
    wrong = set()
    for image in listed:
        place = places.get(image.file_name)
        if place is None:
            continue
        fault = ""
        sides = image.height, image.width
        whole = all(math.isfinite(side) and 1 <= side <= _LONGEST and side == int(side) for side in sides)
        if not whole or math.prod(sides) > _MOST_PIXELS:
            fault = (
                f"image {image.id} has width {image.width} and height {image.height}; "
                "write the image's size in pixels"
            )
        elif by_id.setdefault(key(image.id), image.file_name) != image.file_name:
            fault = f"has two images with id {image.id}; give one of them another id"
        elif findings is None and by_name.setdefault(name := name_of(place), place) != place:
            fault = f"has two images with the name '{name}'; rename one"
        if fault and findings is None:
            raise KitError(f"{path} {fault}")
        if fault and findings is not None:
            findings.add(path, fault)
            wrong.add(image.file_name)
    return {name: place for name, place in places.items() if name not in wrong}
