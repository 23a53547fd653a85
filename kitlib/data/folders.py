"""Folders of images: what lies in them, and how large each image is, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kitlib.data.images import image_size, read_pixels
from kitlib.errors import KitError
from kitlib.offline import SUFFIXES as SUFFIXES
from kitlib.offline import is_image


def image_files(folder: Path | str) -> dict[str, Path]:
    """The images of one folder by their name without extension, sorted by it; sub-folders are not entered.

    Raises:
        KitError: the folder is missing, or two images share a name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise KitError(f"{folder} is not a folder; check the path, or download the data again")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image(path):
            continue
        if path.stem in found:
            raise KitError(
                f"{folder} holds both {found[path.stem].name} and {path.name}; keep one image a name"
            )
        found[path.stem] = path
    return found


def whole_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image from its header, having looked for a PNG's end mark.

    So a PNG that was cut short is met when the data are listed, rather than hours into training.

    Raises:
        KitError: the file is missing, not an image, or a PNG cut short.
    """
    size = image_size(path)
    if path.suffix.lower() == ".png" and not _has_end(path):
        read_pixels(path)  # bytes may follow the end mark, so only decoding can tell
    return size


def check_size(path: Path, height: int, width: int, source: str) -> None:
    """Refuse an image whose size is not the one that ``source`` (a file, and a row or key in it) gives.

    Raises:
        KitError: the sizes differ, or ``whole_size`` fails.
    """
    rows, columns = whole_size(path)
    if (rows, columns) != (height, width):
        raise KitError(
            f"{source} says width {width}, height {height}, but {path} is {columns} wide, {rows} high; "
            "correct the numbers or restore the image they were made for"
        )


def some(names: Iterable[object], limit: int = 3) -> str:
    """The first few names and how many more there are, for messages."""
    names = sorted(str(name) for name in names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _has_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 12, 0))
        return file.read()[4:8] == b"IEND"
