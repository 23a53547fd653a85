"""One owner for every pixel: overlapping instances become disjoint ones.

A submission with two overlapping masks is rejected whole, while instance segmentation networks predict each
cell on its own. Here cells are painted, best first, on one label map; what a better cell has taken is lost to
the others. Memory is that of the label map and of the cells' own pixels, whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib import records
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.post.config import Split
from kitlib.records import Cell


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
    taken: NDArray[np.bool_] = np.zeros(height * width, bool)
    result = {}
    for (number, cell), wanted in zip(
        cells.items(), rle.pixels([c.mask for c in cells.values()]), strict=True
    ):
        left = _left(wanted, ~taken[wanted], width, max_clipped, split)
        taken[left] = True
        if len(left):
            whole = len(left) == len(wanted)
            result[number] = cell if whole else replace(cell, mask=_from_pixels(left, height, width))
    return result


def stays(number: int, wanted: int, max_clipped: float) -> bool:
    """Whether an instance of ``wanted`` pixels of which ``number`` are left loses no larger share than
    ``max_clipped``, and not all."""
    return number > 0 and wanted - number <= max_clipped * wanted


def _left(
    wanted: NDArray, free: NDArray, width: int, max_clipped: float, split: Split
) -> NDArray[np.integer]:
    """The pixels that an instance keeps, none where it is dropped.

    Args:
        wanted: its flat pixel indices in the frame, ascending.
        free: whether each of them is free.
        width: of the frame.
        max_clipped, split: as for ``resolve``.
    """
    nothing, left = wanted[:0], wanted[free]
    if not stays(len(left), len(wanted), max_clipped):
        return nothing
    if len(left) == len(wanted) or split == "keep_all":
        return left
    largest = largest_piece(left, wanted, width)
    if largest is None:
        return left
    fits = split == "keep_largest" and stays(len(largest), len(wanted), max_clipped)
    return largest if fits else nothing


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


def largest_piece(left: NDArray, wanted: NDArray, width: int) -> NDArray | None:
    """The largest of the 8-connected pieces into which clipping broke an instance; None where it did not.

    Args:
        left: the flat pixel indices, ascending, that are left of it; at least one.
        wanted: those that it had.
        width: of the frame.
    """
    found = _pieces(left, width)
    if found.number == 1 or found.number <= _pieces(wanted, width).number:
        return None
    pieces = found.labels[found.places]
    return left[pieces == np.bincount(pieces)[1:].argmax() + 1]


class _Pieces(NamedTuple):
    """The number of 8-connected pieces, the flattened map of them, from 1, and each pixel's place in it."""

    number: int
    labels: NDArray[np.integer]
    places: NDArray[np.integer]


def _pieces(pixels: NDArray, width: int) -> _Pieces:
    """The pieces of flat pixel indices, ascending, of a frame of this width."""
    y, x = np.divmod(pixels, pixels.dtype.type(width))
    y -= y[0]
    x -= x.min()
    canvas = np.zeros((y[-1] + 1, x.max() + 1), np.uint8)
    places = y * canvas.shape[1] + x
    canvas.ravel()[places] = 1
    number, labels = cv2.connectedComponents(canvas, connectivity=8)
    # The background is counted, too.
    return _Pieces(number - 1, labels.ravel().astype(np.int32, copy=False), places)


def _from_pixels(pixels: NDArray, height: int, width: int) -> RLE:
    firsts = np.flatnonzero(np.diff(pixels, prepend=-2) != 1)
    lengths = np.diff(firsts, append=len(pixels))
    return rle.from_runs(pixels[firsts], lengths, height, width)
