"""Corrections of masks by hand: an outline to a mask, a cut along a line, a union.

Points are x, y in pixels of the frame, as a screen has them: pixel (x, y) is the square from (x, y) to
(x + 1, y + 1), and belongs to a shape that its centre lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage import draw

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.masks.rle import RLE

# Pixels that touch at a corner hang together, as in post-processing.
_NEIGHBOURS = np.ones((3, 3), bool)


def from_outline(points: ArrayLike, height: int, width: int) -> RLE:
    """The mask of a closed outline; what lies outside the frame is cut off.

    Args:
        points: (N, 2) x, y in pixels; the last point is joined to the first.
        height: the frame's rows.
        width: the frame's columns.

    Raises:
        KitError: fewer than three points, or no pixel in the outline.

    Example:
        >>> rle.to_text(from_outline([(0, 0), (2, 0), (2, 1), (0, 1)], height=2, width=3))
        '1 2'
    """
    corners = _finite(points)
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0) if len(corners) > 2 else (0, 0)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(0) if len(corners) > 2 else (0, 0)
    inside = np.zeros((max(min(y1, height) - y0, 0), max(min(x1, width) - x0, 0)), bool)
    if inside.size:
        # scikit-image's pixels have their centres at whole numbers.
        x, y = (corners - (x0 + 0.5, y0 + 0.5)).T
        inside[draw.polygon(y, x, inside.shape)] = True
    if not inside.any():
        raise KitError("the outline encloses no pixel; draw a larger one, around the cell")
    return rle.from_crop(inside, int(x0), int(y0), height, width)


def split(mask: RLE, line: ArrayLike) -> list[RLE]:
    """The pieces of a mask that is cut along a line, the largest first.

    No pixel is lost: those on the line go to the nearest piece. Of a mask in several parts, those that the
    line does not touch stay with the largest piece.

    Args:
        mask: one cell.
        line: (N, 2) x, y in pixels, at least two points.

    Raises:
        KitError: the line does not cut the mask in two.
    """
    x0, y0, x1, y1 = rle.boxes([mask])[0].tolist()
    inside = rle.crop(mask, (x0, y0, x1, y1))
    cut = _barrier(_finite(line) - (x0, y0), inside.shape) & inside
    parts, _ = ndimage.label(inside, _NEIGHBOURS)
    touched = np.isin(parts, np.unique(parts[cut]))
    pieces, number = ndimage.label(inside & touched & ~cut, _NEIGHBOURS)
    if number < 2:
        raise KitError("the line does not cut the cell in two; draw it from one side to the other")
    nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    owner = np.where(touched & inside, pieces[tuple(nearest)], 0)
    largest = np.argmax(np.bincount(owner[owner > 0]))
    owner[inside & ~touched] = largest
    areas = np.bincount(owner.ravel())[1:]
    order = np.argsort(-areas, kind="stable") + 1
    return [rle.from_crop(owner == k, x0, y0, *rle.height_width(mask)) for k in order]


def _finite(points: ArrayLike) -> NDArray[np.float64]:
    """Points as (N, 2) numbers.

    Raises:
        KitError: they are no points, or not finite.
    """
    found = np.asarray(points, np.float64).reshape(-1, 2)
    if not np.isfinite(found).all():
        raise KitError("a point of the drawn line is no number; draw it again")
    return found


def _barrier(line: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.bool_]:
    """The pixels of a line, (H, W) bool, side by side, so that not even a corner leads across."""
    found = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in pairwise(np.floor(line).astype(int).tolist()):
        rows, columns = draw.line(y0, x0, y1, x1)
        # Where the line goes on by a corner, the pixel beside it as well.
        rows, columns = np.concatenate([rows, rows[1:]]), np.concatenate([columns, columns[:-1]])
        in_frame = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        found[rows[in_frame], columns[in_frame]] = True
    return found
