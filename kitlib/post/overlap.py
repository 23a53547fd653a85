"""One owner for every pixel: overlapping instances become disjoint ones.

A submission with two overlapping masks is rejected whole, while instance segmentation networks predict each
cell on its own. Here cells are painted, best first, on one label map; what a better cell has taken is lost to
the others. Memory is that of the label map and of the cells' own pixels, whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib import records
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.post.config import Split
from kitlib.records import Cell


@dataclass(frozen=True)
class Painted:
    """The disjoint instances of a frame: ``labels`` is the flat label map (0: no cell), and ``pixels[k]`` are
    the flat indices, ascending, of the instance with label ``k + 1``, which was number ``index[k]`` of those
    given. ``broken`` says whether clipping broke one into more pieces, so that ``split`` decided; "keep_all"
    does not look."""

    labels: NDArray[np.int32]
    index: list[int]
    pixels: list[NDArray[np.integer]]
    broken: bool


def resolve(
    cells: Sequence[Cell],
    height: int,
    width: int,
    max_clipped: float = 0.3,
    split: Split = "keep_largest",
    mask_nms: float = 1.0,
) -> list[Cell]:
    """The cells, best first, with no pixel in two of them.

    Args:
        cells: of one frame, in any order; a cell without a score counts as one of 1.
        height: of the frame.
        width: of the frame.
        max_clipped: a cell that loses more than this share of its pixels to better ones is dropped (medal
            winners took 0.2 to 0.3); a cell with nothing left always is.
        split: what becomes of a cell that clipping broke into more pieces than it had: its largest piece is
            kept (the others count as clipped), or it is dropped, or all pieces are kept.
        mask_nms: a cell whose IoU with a better one is above this is dropped first (winners: 0.05 to
            0.15); 1 is off.
    """
    order = nms(cells, mask_nms)
    return list(disjoint({i: cells[i] for i in order}, height, width, max_clipped, split).values())


def nms(cells: Sequence[Cell], highest: float) -> list[int]:
    """Indices of the cells, best first, without those whose IoU with a better one, which stays, is above
    ``highest``; 1 is off."""
    order = records.rank(cells)
    if highest >= 1:
        return order
    masks = [cells[i].mask for i in order]
    return [order[place] for place in np.flatnonzero(suppress(rle.iou(masks, masks), highest))]


def disjoint(
    cells: Mapping[int, Cell], height: int, width: int, max_clipped: float, split: Split
) -> dict[int, Cell]:
    """The cells with no pixel in two of them, by the numbers that they were given under.

    Args:
        cells: of one frame, best first.
        height, width, max_clipped, split: as for ``resolve``.
    """
    numbers = list(cells)
    given = rle.pixels([cell.mask for cell in cells.values()])
    painted = paint(given, height, width, max_clipped, split)
    result = {}
    for i, pixels in zip(painted.index, painted.pixels, strict=True):
        cell = cells[numbers[i]]
        whole = len(pixels) == len(given[i])
        result[numbers[i]] = cell if whole else replace(cell, mask=_from_pixels(pixels, height, width))
    return result


def suppress(iou: NDArray[np.float64], highest: float) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression.

    Args:
        iou: (N, N) of masks that are sorted best first.
        highest: a mask is suppressed by a better one that is not, when their IoU is above this.

    Returns:
        (N,) bool, False for suppressed masks.
    """
    stays = np.ones(len(iou), bool)
    near = iou > highest
    for i in np.flatnonzero(np.triu(near, 1).any(axis=1)):
        if stays[i]:
            stays[i + 1 :] &= ~near[i, i + 1 :]
    return stays


def paint(
    pixels: Sequence[NDArray[np.integer]], height: int, width: int, max_clipped: float, split: Split
) -> Painted:
    """Paint instances, given best first as flat pixel indices, on one label map. Arguments as for
    ``resolve``."""
    labels: NDArray[np.int32] = np.zeros(height * width, np.int32)
    index: list[int] = []
    parts: list[NDArray[np.integer]] = []
    any_broken = False
    for i, wanted in enumerate(pixels):
        free = labels[wanted] == 0
        number, clippable = np.count_nonzero(free), max_clipped * len(wanted)
        if number == 0 or len(wanted) - number > clippable:
            continue
        mine = wanted
        if number < len(wanted):
            mine, broken = _clip(wanted, free, width, split)
            any_broken |= broken
        if len(mine) == 0 or len(wanted) - len(mine) > clippable:
            continue
        index.append(i)
        parts.append(mine)
        labels[mine] = len(index)
    return Painted(labels, index, parts, any_broken)


class _Clipped(NamedTuple):
    """The pixels that are left of an instance, and whether more pieces than before were."""

    pixels: NDArray[np.integer]
    broken: bool


def _clip(wanted: NDArray, free: NDArray, width: int, split: Split) -> _Clipped:
    """The free ones among the wanted pixels, if they hang together as ``split`` asks."""
    left = wanted[free]
    if split == "keep_all":
        return _Clipped(left, False)
    pieces = _pieces(left, width)
    count = pieces.max()
    if count == 1 or count <= _pieces(wanted, width).max():
        return _Clipped(left, False)
    if split == "drop":
        return _Clipped(left[:0], True)
    return _Clipped(left[pieces == np.bincount(pieces)[1:].argmax() + 1], True)


def _pieces(pixels: NDArray, width: int) -> NDArray:
    """For each pixel the number, from 1, of its 8-connected piece."""
    y, x = pixels // width, pixels % width
    y, x = y - y[0], x - x.min()
    canvas = np.zeros((y[-1] + 1, x.max() + 1), np.uint8)
    canvas[y, x] = 1
    return cv2.connectedComponents(canvas, connectivity=8)[1][y, x]


def _from_pixels(pixels: NDArray, height: int, width: int) -> RLE:
    firsts = np.flatnonzero(np.diff(pixels, prepend=-2) != 1)
    lengths = np.diff(firsts, append=len(pixels))
    return rle.from_runs(pixels[firsts], lengths, height, width)
