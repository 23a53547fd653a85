"""The images that files, folders and patterns name; a file may hold several, its planes and channels."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from kitlib.data import layout, planes
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.offline import is_image
from kitlib.records import Frame
from kitlib.stages.notebooks import whole_path


@dataclass(frozen=True)
class NewImage:
    """A picture in a file.

    Attributes:
        frame: without cells; other pictures of the file have the same path.
        path: the file.
        reading: chooses the picture.
    """

    frame: Frame
    path: Path
    reading: ReadingConfig


class Found(NamedTuple):
    """The images of some places, and why a file cannot be read, by its path."""

    images: list[NewImage]
    unreadable: dict[str, str]


def find(places: Iterable[str], reading: ReadingConfig, out: Path | None = None) -> Found:
    """The images that files, folders and patterns name.

    Folders are searched with all sub-folders. An image's id is that of ``layout.image_id``, by its path in
    the folder ("plate_1__well_A1"), or by its name where the file is named by itself. Of images whose ids
    would be the same, all folders are part of the ids, also those that say a part of the data or a role; if
    need be the extensions, too. Where a file holds several pictures, "_" and their name in ``planes.pages``
    follow: "well_A1_p0003".

    Args:
        places: files, folders, and patterns such as ``scans/*.tif``.
        reading: the plane, projection and channel to take; what it leaves open is taken picture by picture.
        out: a folder whose images are results and no input.

    Raises:
        KitError: a place names nothing, there is no image, or two images have the same id.
    """
    named: dict[Path, PurePath] = {}
    for place in places:
        for path, name in _files(place):
            if out is None or out.resolve() not in path.parents:
                named.setdefault(path, name)
    if not named:
        raise KitError("no image was found; name files, folders or patterns such as 'scans/*.tif'")
    images: dict[str, NewImage] = {}
    unreadable: dict[str, str] = {}
    for path, identity in zip(named, _ids(list(named.values())), strict=True):
        try:
            pages = planes.pages(path, reading)
        except KitError as error:
            unreadable[str(path)] = str(error)
            continue
        for page in pages:
            key = "_".join(filter(None, (identity, page.name)))
            if key in images:
                raise KitError(
                    f"{path} and {images[key].path} would have the same results, '{key}'; "
                    "predict them in two calls, with two folders --out"
                )
            images[key] = NewImage(Frame(key, path, page.height, page.width), path, page.reading)
    return Found(list(images.values()), unreadable)


def _ids(names: list[PurePath]) -> list[str]:
    """The id of each image by its path: the shortest that no other image has."""
    choices = [
        (layout.image_id(name), layout.frame_id(name.parts[:-1], name.stem), "__".join(name.parts))
        for name in names
    ]
    counts = [Counter(ids) for ids in zip(*choices, strict=True)]
    return [
        next((one for one, count in zip(ids, counts, strict=True) if count[one] == 1), ids[-1])
        for ids in choices
    ]


def _files(place: str) -> Iterator[tuple[Path, PurePath]]:
    """Each image of a place, and its path in the folder that the place names."""
    path = whole_path(place)
    if path.is_dir():
        yield from (
            (file, file.relative_to(path)) for file in sorted(path.rglob("*")) if _is_input(file, path)
        )
        return
    matches = (
        [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    )
    if not matches:
        raise KitError(f"{place[:80]} names no file or folder; check the path")
    for match in matches:
        if match.is_dir():
            yield from _files(str(match))
        elif match == path or is_image(match):
            yield match.resolve(), PurePath(match.name)


def _is_input(file: Path, folder: Path) -> bool:
    """Whether a file is an image, outside hidden folders such as that of results."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and is_image(file) and file.is_file()
