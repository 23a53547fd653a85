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

# The digits of COCO's text of counts; from the 33rd on, another one of the same number follows.
_DIGITS = bytes(range(48, 112))
_CONTINUED = 48 + 32


def compress(counts: NDArray, offsets: NDArray) -> tuple[bytes, NDArray]:
    """COCO's text of many lists of counts (``rleToString`` of maskApi.c).

    Args:
        counts: run lengths of all masks, one after the other, each beginning with its first gap.
        offsets: (N + 1,) where each mask's counts begin, and the end of the last.

    Returns:
        The texts in one, and the (N + 1,) bounds of each mask's text in it.
    """
    values = counts.copy()
    values[2:] -= counts[:-2]
    # The first three counts of each mask are stored as they are.
    for place in range(3):
        first = offsets[:-1] + place
        first = first[first < offsets[1:]]
        values[first] = counts[first]
    groups = np.ones(len(values), np.int64)
    magnitude = np.where(values < 0, ~values, values)
    for bits in range(4, 64, 5):
        longer = magnitude >= (1 << bits)
        if not longer.any():
            break
        groups += longer
    ends = np.cumsum(groups)
    firsts = ends - groups
    text = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    for group in range(int(groups.max(initial=0))):
        has = groups > group
        more = groups[has] > group + 1
        text[firsts[has] + group] = ((values[has] >> (5 * group)) & 31) + 32 * more + 48
    return text.tobytes(), np.concatenate([[0], ends])[offsets]


def is_whole(text: bytes) -> bool:
    """Whether COCO's text of counts has its digits alone and ends with a number's last one.

    maskApi.c reads any other text beyond its end, and the process may crash.
    """
    return not text or (not text.translate(None, _DIGITS) and text[-1] < _CONTINUED)


def expand(texts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The counts of many masks from COCO's texts (``rleFrString`` of maskApi.c), without making pixels.

    Returns:
        The counts of all masks, one after the other, and the (N + 1,) bounds of each mask's counts.
    """
    codes = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero((codes & 32) == 0)
    firsts = np.concatenate([[0], lasts[:-1] + 1])[: len(lasts)]
    shift = 5 * (np.arange(len(codes)) - np.repeat(firsts, lasts - firsts + 1))
    values = np.add.reduceat((codes & 31) << shift, firsts) if len(lasts) else np.zeros(0, np.int64)
    negative = (codes[lasts] & 16) != 0
    values[negative] -= np.int64(1) << (shift[lasts][negative] + 5)
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    offsets = np.searchsorted(lasts, np.concatenate([[0], ends]))
    return _summed(values, offsets), offsets


def _summed(values: NDArray, offsets: NDArray) -> NDArray[np.int64]:
    """Counts from differences to the count two before, which the first three of each mask do not have."""
    # Of every second value from the very first on; the first sum is 0.
    sums = np.empty(len(values) + 1, np.int64)
    sums[0] = 0
    sums[1::2], sums[2::2] = np.cumsum(values[0::2]), np.cumsum(values[1::2])
    begin = np.repeat(offsets[:-1], np.diff(offsets))
    odd = (np.arange(len(values)) - begin) % 2
    # Less the sum up to the mask's own first count, or to the count before it.
    counts = sums[1:] - sums[begin + 1 - odd]
    firsts = offsets[:-1][np.diff(offsets) > 0]
    counts[firsts] = values[firsts]
    return counts


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
    values, offsets = expand(texts)
    sizes = np.diff(offsets)
    edges = np.cumsum(values)
    edges -= np.repeat(np.concatenate([[0], edges])[offsets[:-1]], sizes)
    place = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    # Gaps and runs alternate; some of them are empty.
    inside = (place % 2 == 1) & (values > 0)
    bounds = np.concatenate([[0], np.cumsum(inside)])[offsets]
    return Runs(edges[inside] - values[inside], edges[inside], bounds)


def pack(runs: Runs, totals: NDArray[np.int64]) -> list[bytes]:
    """COCO's texts of masks; runs that touch are joined.

    Args:
        runs: of N masks.
        totals: (N,) pixels of each mask's frame.
    """
    starts, ends, bounds = _join_touching(runs)
    number = np.diff(bounds)
    tail = totals.copy()
    tail[number > 0] -= ends[bounds[1:][number > 0] - 1]
    # A frame that ends inside the cell has no last gap.
    size = 2 * number + (tail > 0)
    offsets = np.concatenate([[0], np.cumsum(size)])
    values = np.zeros(offsets[-1], np.int64)
    place = 2 * np.arange(len(starts)) + np.repeat(offsets[:-1] - 2 * bounds[:-1], number)
    before = np.concatenate([[0], ends[:-1]])
    before[bounds[:-1][number > 0]] = 0
    values[place], values[place + 1] = starts - before, ends - starts
    values[offsets[1:][tail > 0] - 1] = tail[tail > 0]
    text, cuts = compress(values, offsets)
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
