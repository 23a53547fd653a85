"""A frame as pictures: its label image, and its cells outlined on the image."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from kitlib import files
from kitlib.data import images
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Frame

#: Colours of categories, red, green, blue, in their order: Okabe and Ito's for the colour-blind, on grey.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 200, 130),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (120, 150, 255),
)
# A pixel and its neighbours above, below, left and right.
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def write_labels(frame: Frame, path: Path) -> Path:
    """Write the label image: 16-bit PNG, or 32-bit TIFF where the numbers need it.

    Args:
        frame: its cells.
        path: the file without its extension, which this function adds.
    """
    labels = frame.to_labels()
    is_tiff = labels.dtype == np.uint32
    target = with_suffix(path, ".tif" if is_tiff else ".png")
    if is_tiff:
        with files.atomic(target) as temporary:
            tifffile.imwrite(temporary, labels, compression="zlib")
    else:
        _write_png(target, labels)
    # An earlier result of the same image may have had more cells, or fewer.
    with_suffix(path, ".png" if is_tiff else ".tif").unlink(missing_ok=True)
    return target


def write_outlines(frame: Frame, levels: NDArray[np.uint8], path: Path) -> Path:
    """Write the image as PNG, with each cell's outermost pixels in the colour of its category.

    Args:
        frame: its cells.
        levels: (H, W), of the image.
        path: the file without its extension, which this function adds.
    """
    picture = np.repeat(_stretched(levels)[..., None], 3, axis=2)
    colors = category_colors([frame])
    boxes = rle.boxes([cell.mask for cell in frame.cells])
    for cell, (x0, y0, x1, y1) in zip(frame.cells, boxes.tolist(), strict=True):
        inside = rle.crop(cell.mask, (x0, y0, x1, y1))
        picture[y0:y1, x0:x1][rim(inside)] = colors[cell.category]
    target = with_suffix(path, ".png")
    _write_png(target, picture[..., ::-1])
    return target


def category_colors(frames: Sequence[Frame]) -> dict[str, tuple[int, int, int]]:
    """A colour for each category of the frames, red, green, blue.

    A category's name chooses its colour, so that frames which are drawn one by one mostly agree; of two
    categories in these frames with the same choice, the later one by name takes the next free colour.
    """
    colors: dict[str, tuple[int, int, int]] = {}
    for name in sorted({cell.category for frame in frames for cell in frame.cells}):
        first = zlib.adler32(name.encode()) % len(PALETTE)
        turned = PALETTE[first:] + PALETTE[:first]
        colors[name] = next((color for color in turned if color not in colors.values()), turned[0])
    return colors


def grey(image: NDArray) -> NDArray[np.uint8]:
    """The grey levels of an image as a network gets them, (H, W) uint8; see ``images.read_image``.

    Args:
        image: (H, W), or (H, W, C) with the channels last: three or four are red, green and blue, of which
            the luminance is taken; of any other number the mean.

    Raises:
        KitError: it has another shape, or no finite pixel.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise KitError(f"an image is (height, width) or (height, width, channels), not {image.shape}")
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        image = images.in_type(image.mean(axis=2), image.dtype)
    return images.to_8_bit(images.luminance(image), "the image")


def _stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With more contrast, and no white, so that coloured lines are seen."""
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = (image.astype(np.float32) - low) * (215 / max(high - low, 1.0)) + 10
    return np.clip(scaled, 0, 235).astype(np.uint8)


def rim(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask that have a neighbour, above, below, left or right, outside it."""
    pixels = inside.view(np.uint8)
    core: NDArray = cv2.erode(pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (pixels ^ core).view(np.bool_)


def with_suffix(path: Path, suffix: str) -> Path:
    """``path.with_suffix`` would take what follows a full stop in an image's name for an extension."""
    return path.with_name(path.name + suffix)


def _write_png(path: Path, pixels: NDArray) -> None:
    whole, data = cv2.imencode(".png", pixels)
    if not whole:
        raise KitError(f"cannot write {path}: OpenCV makes no PNG of {pixels.shape} {pixels.dtype}")
    with files.atomic(path) as temporary:
        temporary.write_bytes(data.tobytes())
