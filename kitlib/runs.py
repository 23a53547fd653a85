"""Runs of many masks at once, as arrays, from and to COCO's text of their counts.

A mask's runs are the stretches of pixels inside it, numbered from 0 in the order in which its text counts
them. ``starts`` and ``ends`` (half-open) of all masks stand one after the other: mask i has those from
``bounds[i]`` to ``bounds[i + 1]``, ascending.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib import counts


class Runs(NamedTuple):
    """Starts (R,), ends (R,) and bounds (N + 1,) of the runs of N masks."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """How many runs each mask has, (N,)."""
        return np.diff(self.bounds)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The mask of each run, (R,)."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.numbers)


def unpack(texts: Sequence[bytes]) -> Runs:
    """The runs of masks from COCO's texts, without making pixels."""
    values, offsets = counts.expand(texts)
    sizes = np.diff(offsets)
    edges = np.cumsum(values)
    edges -= np.repeat(np.concatenate([[0], edges])[offsets[:-1]], sizes)
    place = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    inside = (place % 2 == 1) & (values > 0)  # gaps and runs take turns; some are empty
    bounds = np.concatenate([[0], np.cumsum(inside)])[offsets]
    return Runs(edges[inside] - values[inside], edges[inside], bounds)


def pack(runs: Runs, totals: NDArray[np.int64]) -> list[bytes]:
    """COCO's texts of masks; runs that touch are joined.

    Args:
        totals: (N,) pixels of each mask's frame.
    """
    starts, ends, bounds = _join_touching(runs)
    number = np.diff(bounds)
    tail = totals.copy()
    tail[number > 0] -= ends[bounds[1:][number > 0] - 1]
    size = 2 * number + (tail > 0)  # a frame that ends inside the cell has no last gap
    offsets = np.concatenate([[0], np.cumsum(size)])
    values = np.zeros(offsets[-1], np.int64)
    place = 2 * np.arange(len(starts)) + np.repeat(offsets[:-1] - 2 * bounds[:-1], number)
    before = np.concatenate([[0], ends[:-1]])
    before[bounds[:-1][number > 0]] = 0
    values[place], values[place + 1] = starts - before, ends - starts
    values[offsets[1:][tail > 0] - 1] = tail[tail > 0]
    text, cuts = counts.compress(values, offsets)
    return [text[a:b] for a, b in itertools.pairwise(cuts.tolist())]


def _join_touching(runs: Runs) -> Runs:
    starts, ends, bounds = runs
    touches = np.zeros(len(starts) + 1, bool)
    touches[1:-1] = starts[1:] == ends[:-1]
    touches[bounds] = False
    if not touches.any():
        return runs
    removed = np.concatenate([[0], np.cumsum(touches[:-1])])
    return Runs(starts[~touches[:-1]], ends[~touches[1:]], bounds - removed[bounds])


class RowRuns(NamedTuple):
    """Runs cut at the ends of rows, (R,) each: the mask, the row, the first column, the one past the last."""

    owner: NDArray[np.int64]
    row: NDArray[np.int64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]


def by_row(runs: Runs, widths: NDArray[np.int64]) -> RowRuns:
    """The runs of masks of frames with (N,) ``widths``, cut where they pass from one row into the next."""
    owner, starts, ends = runs.owners, runs.starts, runs.ends
    width = widths[owner]
    row = starts // width
    rows = (ends - 1) // width - row + 1
    if not (rows == 1).all():
        part = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        owner, width, row, starts, ends = (np.repeat(x, rows) for x in (owner, width, row, starts, ends))
        row += part
    left = row * width
    return RowRuns(owner, row, np.maximum(starts - left, 0), np.minimum(ends - left, width))
