"""Image files as grey frames."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kitlib.errors import KitError
from kitlib.offline import SUFFIXES as SUFFIXES
from kitlib.offline import is_image, out_of_memory

# Names that a message lists.
_SHOWN = 3
#: What Pillow raises for files that are cut short, damaged, or whose headers claim too many pixels.
_UNREADABLE = (OSError, SyntaxError, ValueError, OverflowError, struct.error, Image.DecompressionBombError)


def read_image(path: Path | str, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
    """The grey levels of an image, (H, W) uint8.

    Colours become luminance. Images of more than 8 bits are stretched: their 0.1st and 99.9th percentiles
    become black and white.

    Args:
        path: PNG, TIFF, JPEG or anything else that Pillow reads.
        height: rows that the image must have, if given.
        width: columns that the image must have, if given.

    Raises:
        KitError: the file is missing, no image, cut short, or of another size.
    """
    pixels = read_pixels(path)
    if pixels.ndim == 3:
        luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
        pixels = luminance.round().astype(pixels.dtype)
    if (height or pixels.shape[0], width or pixels.shape[1]) != pixels.shape:
        raise KitError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels but its table says {width} x {height}; "
            "correct the table's width and height or replace the image"
        )
    return pixels if pixels.dtype == np.uint8 else _stretch(pixels)


def read_pixels(path: Path | str) -> NDArray:
    """The pixels of an image file as they are stored, (H, W) or (H, W, channels); palettes are resolved.

    Raises:
        KitError: the file is missing, no image, or cut short.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
                return np.asarray(image.convert("RGB"))
            if image.mode in ("1", "LA"):
                return np.asarray(image.convert("L"))
            if image.mode in ("RGB", "RGBA") and "16" in str(image.tile):
                return _read_16_bit_colours(path)
            return np.asarray(image)
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise KitError(f"{path} is not an image that can be read; replace it") from None
    except (*_UNREADABLE, MemoryError, cv2.error) as error:
        if out_of_memory(error):
            raise KitError(f"there is not enough memory to read {path}; give it a smaller image") from error
        raise KitError(
            f"{path} cannot be read ({error}); it may be cut short: copy or download it again"
        ) from error


def _read_16_bit_colours(path: Path | str) -> NDArray:
    """(H, W, 3) red, green, blue, uint16; Pillow would read the high bytes alone."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("its pixels cannot be decoded")
    return pixels[..., 2::-1]


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width from an image's header, without reading its pixels.

    Raises:
        KitError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except _UNREADABLE as error:
        raise KitError(f"{path} is not an image that can be read ({error}); replace it") from error


def _stretch(pixels: NDArray) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, [0.1, 99.9])
    scaled = (pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.clip(scaled.round(), 0, 255).astype(np.uint8)


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
                f"{folder} holds both {found[path.stem].name} and {path.name}; leave one image of that name"
            )
        found[path.stem] = path
    return found


def whole_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image from its header; a PNG must have its end mark.

    So a PNG that was cut short is found when the data are listed, rather than hours into training.

    Raises:
        KitError: the file is missing, not an image, or a PNG cut short.
    """
    size = image_size(path)
    if path.suffix.lower() == ".png" and not _has_end(path):
        # Bytes may follow the end mark, so only decoding shows whether the file is whole.
        read_pixels(path)
    return size


def check_size(path: Path, height: int, width: int, source: str) -> None:
    """Refuse an image whose size is not the stated one.

    Args:
        path: the image.
        height: the stated rows.
        width: the stated columns.
        source: where they are stated: a file, and a row or key in it.

    Raises:
        KitError: the sizes differ, or ``whole_size`` fails.
    """
    rows, columns = whole_size(path)
    if (rows, columns) != (height, width):
        raise KitError(
            f"{source} says width {width}, height {height}, but {path} is {columns} wide, {rows} high; "
            "correct the numbers or restore the image that they were made for"
        )


def first_few(names: Iterable[object]) -> str:
    """The first few names and how many more there are, for messages."""
    names = sorted(str(name) for name in names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _has_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 12, 0))
        return file.read()[4:8] == b"IEND"
