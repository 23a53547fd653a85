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
    rings, owners = [], []
    for place, (inside, corner) in enumerate(zip(rle.crops(masks, boxes), boxes[:, :2], strict=True)):
        for ring in _rings(inside):
            rings.append(ring + corner)
            owners.append(place)
    points, bounds = _corners(rings)
    counts = np.array([len(owners), len(points)])
    return np.concatenate([counts, owners, bounds, points.ravel()]).astype("<u4").tobytes()


def _rings(inside: NDArray[np.bool_]) -> list[NDArray]:
    """The outlines of an (h, w) mask, (N, 2) x, y, with all pixel corners that they pass, some twice."""
    # OpenCV's contours run through the centres of the outermost pixels. With every pixel doubled, these are
    # the quarters of pixels next to the edge, and rounding moves each to its pixel's corner.
    doubled = inside.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(doubled, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [(ring[:, 0] + 1) // 2 for ring in found]


def _corners(rings: Sequence[NDArray]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points at which the rings change their direction, (P, 2), and the (R + 1,) bounds of the rings."""
    points, bounds = _joined(rings)
    before, _ = _neighbours(bounds)
    points, bounds = _chosen(points, bounds, (points != points[before]).any(axis=1))
    before, after = _neighbours(bounds)
    back, ahead = points - points[before], points[after] - points
    return _chosen(points, bounds, back[:, 0] * ahead[:, 1] != back[:, 1] * ahead[:, 0])


def _joined(rings: Sequence[NDArray]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    bounds = np.cumsum([0, *map(len, rings)])
    return np.concatenate([np.zeros((0, 2), np.int64), *rings]), bounds


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
