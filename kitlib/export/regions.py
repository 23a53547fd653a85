"""Measurements of many masks at once, from run lengths, as scikit-image's ``regionprops`` defines them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.export.pictures import rim
from kitlib.masks import rle
from kitlib.masks.runs import RowRuns

# Masks whose pixels are in memory at once.
_CHUNK = 500
# What the neighbours of a pixel on the rim add to its code, and the length of the outline that a code stands
# for: scikit-image's ``perimeter`` with a neighbourhood of 4, after Benkrid and Crookes (2000).
_NEIGHBOURS = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]], np.float32)
_LENGTHS = np.zeros(256)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1
_LENGTHS[[21, 33]] = np.sqrt(2)
_LENGTHS[[13, 23]] = (1 + np.sqrt(2)) / 2


class Shapes(NamedTuple):
    """Of N masks, (N,) each, in pixels; not a number for an empty mask, whose area is 0.

    Attributes:
        centroid_x: 0 is the centre of the first column.
        centroid_y: 0 is the centre of the first row.
        eccentricity: of the ellipse with the same second moments, from 0 (circle) to 1 (line).
        solidity: the area over that of the convex hull.
    """

    area: NDArray[np.int64]
    centroid_x: NDArray[np.float64]
    centroid_y: NDArray[np.float64]
    perimeter: NDArray[np.float64]
    eccentricity: NDArray[np.float64]
    solidity: NDArray[np.float64]


def shapes(masks: Sequence[rle.RLE]) -> Shapes:
    """The measurements of masks of one frame.

    Example:
        >>> line = rle.from_mask(np.array([[0, 0, 0], [1, 1, 1]]))
        >>> [float(values[0]) for values in shapes([line])]
        [3.0, 1.0, 1.0, 2.0, 1.0, 1.0]
    """
    runs = rle.row_runs(masks)
    count = len(masks)
    length = (runs.end - runs.first).astype(np.float64)
    middle = (runs.first + runs.end - 1) / 2
    area = np.bincount(runs.owner, length, count).astype(np.float64)
    with np.errstate(invalid="ignore"):
        x = np.bincount(runs.owner, length * middle, count) / area
        y = np.bincount(runs.owner, length * runs.row, count) / area
        solidity = area / _convex_areas(runs, count)
    eccentricity = _eccentricity(runs, length, middle - x[runs.owner], runs.row - y[runs.owner], area)
    return Shapes(area.astype(np.int64), x, y, _perimeters(masks), eccentricity, solidity)


def _eccentricity(
    runs: RowRuns, length: NDArray, x: NDArray, y: NDArray, area: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From the length of each run and the place of its middle, x and y, from its mask's centroid."""
    # A run of n pixels adds (n^3 - n) / 12 to the second moment about its own middle.
    products = (length * x * x + (length**3 - length) / 12, length * y * y, length * x * y)
    with np.errstate(invalid="ignore", divide="ignore"):
        xx, yy, xy = (np.bincount(runs.owner, product, len(area)) / area for product in products)
        spread = np.hypot((xx - yy) / 2, xy)
        larger, smaller = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 0)
        return np.where(larger == 0, 0, np.sqrt(1 - smaller / larger))


def _perimeters(masks: Sequence[rle.RLE]) -> NDArray[np.float64]:
    found = np.full(len(masks), np.nan)
    boxes = rle.boxes(masks)
    for part in _chunks(len(masks)):
        for number, inside in zip(range(len(masks))[part], rle.crops(masks[part], boxes[part]), strict=True):
            if inside.size:
                border = rim(inside).view(np.uint8)
                codes = cv2.filter2D(border, -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
                found[number] = _LENGTHS[codes].sum()
    return found


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


# ------------------------------------------------------------------------------------------ convex hulls


def _convex_areas(runs: RowRuns, count: int) -> NDArray[np.float64]:
    """The number of pixels whose centre lies in the convex hull of each mask's pixels.

    scikit-image's hull runs through the middles of the pixels' edges. Coordinates are doubled here, so that
    all are whole numbers.
    """
    new_row = np.diff(runs.owner, prepend=-1).astype(bool) | np.diff(runs.row, prepend=-1).astype(bool)
    begins = np.flatnonzero(new_row)
    ends = np.append(begins[1:], len(new_row))[: len(begins)] - 1
    owner, y = runs.owner[begins], 2 * runs.row[begins]
    left, right = 2 * runs.first[begins], 2 * (runs.end[ends] - 1)
    # Of the pixels of a row, the outermost two make up the hull.
    xs = np.stack([left - 1, left, left, right + 1, right, right], axis=1)
    ys = np.stack([y, y - 1, y + 1, y, y - 1, y + 1], axis=1)
    points = np.stack([xs, ys], axis=2).astype(np.int32)
    bounds = np.searchsorted(owner, np.arange(count + 1)).tolist()
    return np.array([_pixels_in_hull(points[a:b].reshape(-1, 2)) for a, b in pairwise(bounds)], np.float64)


def _pixels_in_hull(points: NDArray[np.int32]) -> int:
    """How many points of two even coordinates lie in or on the convex hull of (N, 2) points x, y."""
    if not len(points):
        return 0
    hull = cv2.convexHull(points)[:, 0].astype(np.int64)
    x, y = hull.T
    dx, dy = (hull[np.r_[1 : len(hull), 0]] - hull).T
    lowest = y.min() + y.min() % 2
    across = x * dy + (np.arange(lowest, y.max() + 1, 2)[:, None] - y) * dx
    # OpenCV's hull turns from x to y: edges along which y grows bound it to the right, others to the left.
    right, left = dy > 0, dy < 0
    last = (across[:, right] // (2 * dy[right])).min(axis=1)
    first = -(across[:, left] // (-2 * dy[left])).min(axis=1)
    return int(np.maximum(last - first + 1, 0).sum())


# ------------------------------------------------------------------------------------------ intensities


def intensity_sums(masks: Sequence[rle.RLE], image: NDArray) -> NDArray[np.float64]:
    """The sum of an image's numbers over each mask, (N, C).

    Args:
        masks: of one frame, none of them empty.
        image: (H, W, C), of the frame's size and of any type.
    """
    flat = image.reshape(-1, image.shape[2])
    sums = np.zeros((len(masks), image.shape[2]))
    for part in _chunks(len(masks)):
        pixels = rle.pixels(masks[part])
        starts = np.cumsum([0, *map(len, pixels[:-1])])
        sums[part] = np.add.reduceat(flat[np.concatenate(pixels)], starts, axis=0, dtype=np.float64)
    return sums
