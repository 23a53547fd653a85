"""COCO's compressed run lengths: five bits a character, differences to the count two before.

pycocotools compresses one mask at a time and expands only into pixels; these work on whole arrays.
"""

from __future__ import annotations

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


def expand(text: bytes) -> NDArray[np.int64]:
    """The counts of one mask from COCO's text (``rleFrString`` of maskApi.c), without making pixels."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero((codes & 32) == 0)
    if not len(lasts):
        return np.zeros(0, np.int64)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - np.repeat(firsts, lasts - firsts + 1))
    values = np.add.reduceat((codes & 31) << shift, firsts)
    negative = (codes[lasts] & 16) != 0
    values[negative] -= np.int64(1) << (shift[lasts][negative] + 5)
    counts = values.copy()
    counts[1::2], counts[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return counts
