"""Image files as grey frames."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from kitlib.errors import KitError, shortened
from kitlib.offline import SUFFIXES as SUFFIXES
from kitlib.offline import is_image, out_of_memory

# Names that a message lists.
_SHOWN = 3
#: What Pillow raises for files that are cut short, damaged, or whose headers claim too many pixels.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, OverflowError, struct.error),
    *(EOFError, IndexError, Image.DecompressionBombError),
)
#: The tag of Exif and TIFF that says how a picture is turned for showing, 1 to 8; from 5 on, its sides swap.
ORIENTATION = 0x0112


def read_image(path: Path | str, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
    """The grey levels of an image, (H, W) uint8.

    Colours become luminance. Images of more than 8 bits are stretched: their 0.1st and 99.9th percentiles
    become black and white. What is not finite becomes the smallest or, above all numbers, the largest number.

    Args:
        path: PNG, TIFF, JPEG or anything else that Pillow reads; ``kitlib.data.planes`` reads more.
        height: rows that the image must have, if given.
        width: columns that the image must have, if given.

    Raises:
        KitError: the file is missing, no image, cut short, of several pages, or of another size.
    """
    pixels = luminance(read_pixels(path))
    if (height or pixels.shape[0], width or pixels.shape[1]) != pixels.shape:
        raise KitError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels but its table says {width} x {height}; "
            "correct the table's width and height or replace the image"
        )
    return to_8_bit(pixels, path)


def luminance(pixels: NDArray) -> NDArray:
    """(H, W) grey levels, in the same type, of (H, W, 3 or 4) colours; grey stays as it is."""
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    return in_type(grey, pixels.dtype)


def grey_shares(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of an (H, W) image's pixels at each grey level, (256,)."""
    # numpy.bincount would make eight bytes of each pixel.
    counts: NDArray = cv2.calcHist([image], [0], None, [256], [0, 256])
    return counts.ravel().astype(np.float64) / image.size


def in_type(values: NDArray, dtype: np.dtype) -> NDArray:
    """The values in a type of numbers, rounded where that holds whole numbers."""
    return (values.round() if dtype.kind in "iu" else values).astype(dtype)


def read_pixels(path: Path | str) -> NDArray:
    """The pixels of an image file, (H, W) or (H, W, channels), turned as its Exif orientation says.

    Palettes are resolved.

    Raises:
        KitError: the file is missing, no image, cut short, or of several pages.
    """
    try:
        with Image.open(path) as image:
            # A phone's photograph (MPO) has a small copy as its second page.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise KitError(f"{path} holds {image.n_frames} pages; choose one with plane, or a projection")
            _check_covered(image)
            if image.mode in ("RGB", "RGBA") and "16" in str(image.tile):
                return _read_16_bit_colours(path, _orientation(image))
            if image.format == "TIFF" and _orientation(image) > 1:
                # Pillow turns TIFF by itself, but takes the sides of uncompressed ones for swapped.
                return turned(_by_tifffile(path), _orientation(image))
            return turned(_resolved(image), _orientation(image))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise KitError(f"{path} is not an image that can be read; replace it") from None
    except (*UNREADABLE, MemoryError, cv2.error) as error:
        if out_of_memory(error):
            raise KitError(f"there is not enough memory to read {path}; give it a smaller image") from error
        raise KitError(
            f"{path} cannot be read ({error}); it may be cut short: copy or download it again"
        ) from error


def _check_covered(image: Image.Image) -> None:
    """Refuse a TIFF with rows that no strip holds: Pillow would make them black, however many there are.

    Raises:
        ValueError: the picture is larger than its strips or tiles.
    """
    extents = [tile[1] for tile in image.tile if tile[1]] if isinstance(image, TiffImageFile) else []
    if not extents:
        return
    # The farthest column and row; sides may be swapped, by the version of Pillow.
    *_, right, low = map(max, zip(*extents, strict=True))
    if right * low < image.width * image.height:
        raise ValueError(f"{image.width} x {image.height} pixels are more than it holds")


def _resolved(image: Image.Image) -> NDArray:
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(image.convert("RGB"))
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image)


def _by_tifffile(path: Path | str) -> NDArray:
    import tifffile

    from kitlib.data import lzw

    try:
        with tifffile.TiffFile(path) as file:
            lzw.check_pages(file.pages)
            return file.asarray()
    # A damaged file makes tifffile raise errors of any kind.
    except Exception as error:
        raise ValueError(str(error)) from error


def _read_16_bit_colours(path: Path | str, orientation: int) -> NDArray:
    """(H, W, 3) red, green, blue, uint16; Pillow would read the high bytes alone."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("its pixels cannot be decoded")
    return turned(pixels[..., 2::-1], orientation)


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width from an image's header, turned as ``read_pixels``, without reading its pixels.

    Raises:
        KitError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return _shown_size(image)
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except UNREADABLE as error:
        raise KitError(f"{path} is not an image that can be read ({error}); replace it") from error


def _shown_size(image: Image.Image) -> tuple[int, int]:
    # The size of a TIFF may be swapped already, by the version of Pillow.
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        size = int(tags.get(IMAGELENGTH, image.height)), int(tags.get(IMAGEWIDTH, image.width))
        return size[::-1] if _orientation(image) >= 5 else size
    swapped = _orientation(image) >= 5
    return (image.width, image.height) if swapped else (image.height, image.width)


def orientation(path: Path | str) -> int:
    """How a picture is turned for showing, 1 to 8; 1 where its file does not say, or cannot be read."""
    try:
        with Image.open(path) as image:
            return _orientation(image)
    except UNREADABLE:
        return 1


def _orientation(image: Image.Image) -> int:
    # Pillow would decode a PNG to look for what comes after its pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    found = image.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def turned(pixels: NDArray, orientation: int) -> NDArray:
    """An (H, W, ...) array as stored, turned as its Exif orientation, 1 to 8, says.

    Example:
        >>> turned(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def to_8_bit(pixels: NDArray, source: Path | str) -> NDArray[np.uint8]:
    """Grey levels as ``read_image`` gives them.

    Args:
        pixels: (H, W), of any type.
        source: the file's name in an error.

    Raises:
        KitError: no number is finite.
    """
    if pixels.dtype == np.uint8:
        return pixels
    return _stretch(finite(pixels, source))


def finite(pixels: NDArray, source: Path | str) -> NDArray:
    """The pixels with NaN and minus infinity as the smallest finite number, infinity as the largest.

    Raises:
        KitError: no number is finite.
    """
    if pixels.dtype.kind != "f" or np.isfinite(pixels).all():
        return pixels
    good = pixels[np.isfinite(pixels)]
    if not good.size:
        raise KitError(f"{source} holds no finite number; replace it")
    low, high = good.min(), good.max()
    return np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)


def _stretch(pixels: NDArray) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, [0.1, 99.9])
    if pixels.dtype == np.uint16:
        # Each number is scaled once, not each pixel.
        return _scaled(np.arange(1 << 16, dtype=np.uint16), low, high)[pixels]
    return _scaled(pixels, low, high)


def _scaled(numbers: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    wide = numbers.astype(np.promote_types(numbers.dtype, np.float32))
    scaled = (wide - low) * (255.0 / max(high - low, 1e-6))
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
    names = sorted(map(shortened, names))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _has_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 12, 0))
        return file.read()[4:8] == b"IEND"
