"""COCO's compressed run lengths: five bits a character, differences to the count two before.

pycocotools compresses one mask at a time and expands only into pixels; these work on whole arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
    for place in range(3):  # the first three counts of each mask are stored as they are
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
    sums = np.empty(len(values) + 1, np.int64)  # of every second value from the very first on; the first is 0
    sums[0] = 0
    sums[1::2], sums[2::2] = np.cumsum(values[0::2]), np.cumsum(values[1::2])
    begin = np.repeat(offsets[:-1], np.diff(offsets))
    odd = (np.arange(len(values)) - begin) % 2
    counts = (
        sums[1:] - sums[begin + 1 - odd]
    )  # less the sum up to the mask's own first, or to the one before it
    firsts = offsets[:-1][np.diff(offsets) > 0]
    counts[firsts] = values[firsts]
    return counts
