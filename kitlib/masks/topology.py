"""Parts and holes of masks, found from their runs without making pixels.

Take the runs as nodes of a graph and join those that touch in neighbouring rows, also diagonally. The graph
is planar; its components are the mask's parts, and its faces, edges - nodes + components by Euler's formula,
are the holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kitlib.masks import rle


@dataclass(frozen=True)
class Topology:
    """Of N masks with R runs in all: the number of parts and holes of each mask, and the part of each run.

    Attributes:
        parts: (N,) 8-connected parts.
        holes: (N,) 4-connected background regions that the mask encloses.
        owner: (R,) the mask of each run, ascending.
        part: (R,) a number of the run's part, unique among all masks.
        starts: (R,) starts of the runs from 0, row-major; no run passes from one row into the next.
        lengths: (R,) lengths of the runs.
    """

    parts: NDArray[np.int64]
    holes: NDArray[np.int64]
    owner: NDArray[np.int64]
    part: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def topology(masks: Sequence[rle.RLE]) -> Topology:
    """The parts and holes of masks of one frame."""
    if not masks:
        return Topology(*(np.zeros(0, np.int64) for _ in range(6)))
    height, width = rle.height_width(masks[0])
    owner, row, left, right = rle.row_runs(masks)
    first, second = _touching(owner, row, left, right, height, width)
    count = len(owner)
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    number, part = connected_components(graph, directed=False) if count else (0, owner)
    owner_of_part = np.zeros(number, np.int64)
    owner_of_part[part] = owner
    nodes, edges, parts = (np.bincount(x, minlength=len(masks)) for x in (owner, owner[first], owner_of_part))
    return Topology(parts, edges - nodes + parts, owner, part, row * width + left, right - left)


def _touching(
    owner: NDArray, row: NDArray, left: NDArray, right: NDArray, height: int, width: int
) -> tuple[NDArray, NDArray]:
    """The pairs of runs of one mask that touch: indices of the upper and of the lower run."""
    # All rows of all masks are put on one line, rows two columns apart and masks one row, so that only runs
    # of one mask in neighbouring rows touch.
    stride = width + 2
    line = (owner * (height + 1) + row) * stride
    left, right = line + left, line + right
    low = np.searchsorted(right, left + stride, side="left")
    high = np.searchsorted(left, right + stride, side="right")
    count = high - low
    upper = np.repeat(np.arange(len(owner)), count)
    lower = low[upper] + np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, lower
