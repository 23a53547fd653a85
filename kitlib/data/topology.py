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

from kitlib import rle


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
    owner, starts, ends = _row_runs(masks, width)
    first, second = _touching(owner, starts, ends, height, width)
    count = len(owner)
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    number, part = connected_components(graph, directed=False) if count else (0, owner)
    owner_of_part = np.zeros(number, np.int64)
    owner_of_part[part] = owner
    nodes, edges, parts = (np.bincount(x, minlength=len(masks)) for x in (owner, owner[first], owner_of_part))
    return Topology(parts, edges - nodes + parts, owner, part, starts, ends - starts)


def _row_runs(masks: Sequence[rle.RLE], width: int) -> tuple[NDArray, NDArray, NDArray]:
    """Owner, start and end of all runs of all masks, cut where they pass from one row into the next."""
    runs = [rle.runs(mask) for mask in masks]
    owner = np.repeat(np.arange(len(masks)), [len(starts) for starts, _ in runs])
    starts = np.concatenate([starts for starts, _ in runs])
    ends = starts + np.concatenate([lengths for _, lengths in runs])
    first_row, last_row = starts // width, (ends - 1) // width
    pieces = last_row - first_row + 1
    index = np.repeat(np.arange(len(starts)), pieces)
    row = first_row[index] + np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return owner[index], np.maximum(starts[index], row * width), np.minimum(ends[index], (row + 1) * width)


def _touching(
    owner: NDArray, starts: NDArray, ends: NDArray, height: int, width: int
) -> tuple[NDArray, NDArray]:
    """The pairs of runs of one mask that touch: indices of the upper and of the lower run."""
    # All rows of all masks lie on one line: rows two columns apart and masks one row, so none touch falsely.
    row, stride = starts // width, width + 2
    line = (owner * (height + 1) + row) * stride
    left, right = line + starts - row * width, line + ends - row * width
    low = np.searchsorted(right, left + stride, side="left")
    high = np.searchsorted(left, right + stride, side="right")
    count = high - low
    upper = np.repeat(np.arange(len(owner)), count)
    lower = low[upper] + np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, lower
