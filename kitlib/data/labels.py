"""Label images, which give each cell a number, and masks of one cell a file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components

from kitlib.data import images, planes, tiff
from kitlib.data.config import DEFAULTS, Findings, ReadingConfig
from kitlib.data.images import first_few
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.masks.topology import topology

# Formats that change numbers. The last two have lossless variants, but are not used for label images.
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP")
# A cell in more parts is not searched for how far they are apart.
_MANY_PARTS = 500
# Whole numbers that a float of 64 bits holds exactly.
_LARGEST_NUMBER = 1 << 53


def read_labels(path: Path | str, reading: ReadingConfig = DEFAULTS) -> NDArray[np.integer]:
    """A label image as (H, W) integers: 0 is background, each cell has a number of its own.

    PNG or TIFF of any depth, also with the numbers as floats or thrice as red, green and blue; of a palette,
    the indices count. It is turned as its Exif orientation says.

    Args:
        path: the file.
        reading: its ``plane`` is taken of a TIFF file that holds several.

    Raises:
        KitError: colour, several pages without a choice, fractions, negative numbers, lossy compression, or
            not an image.
    """
    path = Path(path)
    labels = planes.read_labels(path, reading) if tiff.is_tiff(path) else _stored(path)
    return whole_numbers(labels, path)


def whole_numbers(labels: NDArray, path: Path) -> NDArray[np.integer]:
    """Numbers of cells as (H, W) integers.

    Args:
        labels: the array that a file holds.
        path: the file, for messages.

    Raises:
        KitError: as ``read_labels``.
    """
    if labels.ndim == 3 and (labels[..., :3] == labels[..., :1]).all():
        labels = labels[..., 0]
    wrong = _wrong(labels)
    if wrong:
        raise KitError(f"{path} {wrong}")
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    return labels if labels.dtype.kind in "iu" else labels.astype(np.int64)


def cells(labels: NDArray[np.integer], path: Path, relabel: bool, findings: Findings) -> list[rle.RLE]:
    """The mask of each number of a label image, ascending.

    A number that lies in parts far from each other is reported: two cells may share it.

    Args:
        labels: (H, W); 0 is background.
        path: the file, for messages.
        relabel: make each 8-connected part of a number a cell of its own.
        findings: where faults are added that leave the label image usable.

    Raises:
        KitError: the only number lies in several parts: a mask of all cells together.
    """
    masks = rle.from_labels(labels)
    parts = _parts(masks)
    if relabel:
        return [mask for group in parts for mask in group]
    if len(masks) == 1 and len(parts[0]) > 1:
        raise KitError(
            f"{path} is a mask of all cells together: its only number, {labels.max()}, lies in "
            f"{len(parts[0])} parts; give each cell a number, or set relabel=true to make each part a cell"
        )
    numbers = np.unique(labels[labels != 0]).tolist() if any(len(group) > 1 for group in parts) else []
    apart = [number for number, group in zip(numbers, parts, strict=False) if _far_apart(group)]
    if apart:
        findings.add(
            path,
            f"has the same number on parts that lie far apart: {first_few(apart)}",
            "each read as one cell; relabel=true makes each part a cell",
        )
    return masks


def one_a_file(paths: Sequence[Path], height: int, width: int, findings: Findings) -> list[rle.RLE]:
    """The masks of files that show one cell each; those that cannot be read, or show none, are reported.

    Args:
        paths: mask images, in which the cell is what is not 0.
        height: rows that each must have.
        width: columns that each must have.
        findings: where the faults are added.
    """
    masks = []
    for path in paths:
        with findings.leaving_out(path):
            pixels = planes.read_labels(path, ReadingConfig()) if tiff.is_tiff(path) else _stored(path)
            cell = (pixels if pixels.ndim == 2 else pixels[..., :3].max(-1)) != 0
            if cell.shape != (height, width):
                raise KitError(
                    f"is {cell.shape[1]} wide, {cell.shape[0]} high; its image is {width} wide, {height} high"
                )
            if not cell.any():
                raise KitError("shows no cell")
            masks.append(rle.from_mask(cell))
    return masks


def fitted(labels: NDArray, image: Path, height: int, width: int, findings: Findings, path: Path) -> NDArray:
    """A label image of the shown image's size; one of the size as stored is turned like the image.

    Args:
        labels: (H, W).
        image: the image file.
        height: rows of the image as it is shown.
        width: columns of the image as it is shown.
        findings: where a turned label image is reported.
        path: the label image's file.

    Raises:
        KitError: the sizes differ.
    """
    if labels.shape == (height, width):
        return labels
    turned = images.turned(labels, images.orientation(image))
    if turned.shape != (height, width):
        raise KitError(
            f"{path} is {labels.shape[1]} wide, {labels.shape[0]} high, but its image "
            f"{image.name} {width} wide, {height} high; replace the one that was resized or cut"
        )
    findings.add(path, "was drawn on the image as stored, not as Exif turns it", "turned with it")
    return turned


def _stored(path: Path) -> NDArray:
    """The numbers of an image file, turned; palettes are not resolved."""
    try:
        with Image.open(path) as image:
            if image.format in _LOSSY_FORMATS:
                raise KitError(f"{path} {planes.LOSSY_LABELS}")
            return images.turned(np.asarray(image), images.orientation(path))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except (*images.UNREADABLE, MemoryError) as error:
        raise KitError(
            f"{path} is truncated or not a label image ({str(error)[:80]}); "
            "save it as 8- or 16-bit PNG, or as 8-, 16- or 32-bit TIFF"
        ) from error


def _wrong(labels: NDArray) -> str | None:
    """Why an array is no label image, and the remedy; None if it is one."""
    if labels.ndim != 2:
        return (
            "is a colour image; save numbers of cells, not colours, as one grey channel (16-bit PNG or TIFF)"
        )
    if labels.dtype.kind not in "biuf" or not labels.size:
        return "holds no numbers; a label image holds 0 for background and one number a cell"
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        return "holds fractions; a label image holds whole numbers: 0 for background, one number a cell"
    if labels.dtype.kind != "b" and labels.min() < 0:
        return "holds negative numbers; use 0 for background and 1, 2, ... for the cells"
    if labels.dtype.kind in "fu" and labels.max() > _LARGEST_NUMBER:
        return f"holds numbers above {_LARGEST_NUMBER}; number the cells 1, 2, ..."
    return None


def _parts(masks: Sequence[rle.RLE]) -> list[list[rle.RLE]]:
    """The 8-connected parts of each mask of a frame, as masks."""
    if not masks:
        return []
    height, width = rle.height_width(masks[0])
    found = topology(masks)
    result: list[list[rle.RLE]] = [
        [mask] if n == 1 else [] for mask, n in zip(masks, found.parts, strict=True)
    ]
    in_parts = np.flatnonzero(found.parts[found.owner] > 1)
    order = in_parts[np.argsort(found.part[in_parts], kind="stable")]
    for _, runs in groupby(order.tolist(), key=lambda run: found.part[run]):
        rows = list(runs)
        part = rle.from_runs(found.starts[rows], found.lengths[rows], height, width)
        result[found.owner[rows[0]]].append(part)
    return result


def _far_apart(parts: Sequence[rle.RLE]) -> bool:
    """Whether the gap between some parts and the others is wider than the largest part is."""
    if not 1 < len(parts) <= _MANY_PARTS:
        return len(parts) > _MANY_PARTS
    x0, y0, x1, y1 = rle.boxes(parts).T[:, :, None]
    gaps = np.maximum(np.maximum(x0 - x1.T, x0.T - x1), np.maximum(y0 - y1.T, y0.T - y1))
    near = gaps <= np.sqrt(rle.areas(parts).max())
    return connected_components(near, directed=False)[0] > 1
