"""The outlines of many masks in one block of numbers, as the front end draws them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.masks.rle import RLE


def pack(masks: Sequence[RLE]) -> bytes:
    """All outlines of masks, along the edges of their pixels, as little-endian 32-bit numbers.

    R and P, the numbers of rings and of points; (R,) the place of each ring's mask; (R + 1,) where each
    ring's points begin, and the end of the last; (P, 2) points x, y in pixels, the first of a ring not again
    as its last. A mask has a ring for each of its parts and holes: what an odd number of them encloses is the
    cell.
    """
    boxes = rle.boxes(masks)
    contours, owners = [], []
    for place, (inside, (x, y, *_)) in enumerate(zip(rle.crops(masks, boxes), boxes.tolist(), strict=True)):
        found = _contours(inside, x, y)
        contours += [contour[:, 0] for contour in found]
        owners += [place] * len(found)
    points, bounds = _corners(contours)
    counts = np.array([len(owners), len(points)])
    return np.concatenate([counts, owners, bounds, points.ravel()]).astype("<u4").tobytes()


def _contours(inside: NDArray[np.bool_], x: int, y: int) -> Sequence[NDArray]:
    """OpenCV's contours, (N, 1, 2), of an (h, w) mask at column x, row y, with every pixel doubled."""
    if not inside.size:
        return ()
    size = (2 * inside.shape[1], 2 * inside.shape[0])
    doubled = cv2.resize(inside.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return cv2.findContours(doubled, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(2 * x, 2 * y))[0]


def _corners(contours: Sequence[NDArray]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points at which rings change their direction, (P, 2), and the (R + 1,) bounds of the rings."""
    points, bounds = _joined(contours)
    # Contours run through the centres of the outermost pixels. With every pixel doubled, these are the
    # quarters of pixels next to the edge, and rounding moves each to its pixel's corner.
    points = (points + 1) // 2
    before, _ = _neighbours(bounds)
    points, bounds = _chosen(points, bounds, (points != points[before]).any(axis=1))
    before, after = _neighbours(bounds)
    back, ahead = points - points[before], points[after] - points
    return _chosen(points, bounds, back[:, 0] * ahead[:, 1] != back[:, 1] * ahead[:, 0])


def _joined(contours: Sequence[NDArray]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    bounds = np.cumsum([0, *map(len, contours)])
    return np.concatenate([np.zeros((0, 2), np.int64), *contours]), bounds


def _neighbours(bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each point the place of the one before it and of the one after it in its ring."""
    places = np.arange(bounds[-1])
    before, after = places - 1, places + 1
    filled = bounds[:-1] < bounds[1:]
    firsts, lasts = bounds[:-1][filled], bounds[1:][filled] - 1
    before[firsts], after[lasts] = lasts, firsts
    return before, after


def _chosen(
    points: NDArray[np.int64], bounds: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return points[chosen], np.concatenate([[0], np.cumsum(chosen)])[bounds]
