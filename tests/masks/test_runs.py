"""Runs of several masks at once: from and to COCO's text, and cut into rows."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from kitlib.masks.runs import Runs, by_row, pack, unpack


def text(mask: list[int]) -> bytes:
    """COCO's text of the pixels, in the order in which they are counted."""
    return coco.encode(np.array([mask], np.uint8, order="F").reshape(-1, 1, order="F"))["counts"]


HALVES = [0, 0, 1, 1, 0, 1]
TEXTS = [text(HALVES), text([0] * 6), text([1] * 6)]


def test_runs_of_several_masks_stand_one_after_the_other() -> None:
    runs = unpack(TEXTS)
    assert runs.starts.tolist() == [2, 5, 0]
    assert runs.ends.tolist() == [4, 6, 6]
    assert runs.bounds.tolist() == [0, 2, 2, 3]
    assert runs.numbers.tolist() == [2, 0, 1]
    assert runs.owners.tolist() == [0, 0, 2]
    assert pack(runs, np.full(3, 6)) == TEXTS


def test_runs_that_touch_are_packed_as_one() -> None:
    """Of two masks: 2 to 4 in two parts, then 5; and the whole frame in three parts."""
    starts, ends = np.array([2, 3, 5, 0, 2, 3]), np.array([3, 4, 6, 2, 3, 6])
    assert pack(Runs(starts, ends, np.array([0, 3, 6])), np.full(2, 6)) == [TEXTS[0], TEXTS[2]]


def test_a_mask_that_ends_where_the_next_begins_is_not_joined_to_it() -> None:
    runs = Runs(np.array([0, 3]), np.array([3, 6]), np.array([0, 1, 2]))
    assert pack(runs, np.full(2, 6)) == [text([1, 1, 1, 0, 0, 0]), text([0, 0, 0, 1, 1, 1])]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (6, [(0, 0, 2, 4), (0, 0, 5, 6), (2, 0, 0, 6)]),
        (3, [(0, 0, 2, 3), (0, 1, 0, 1), (0, 1, 2, 3), (2, 0, 0, 3), (2, 1, 0, 3)]),
        (1, [(0, 2, 0, 1), (0, 3, 0, 1), (0, 5, 0, 1), *((2, row, 0, 1) for row in range(6))]),
    ],
)
def test_runs_are_cut_at_the_ends_of_rows(width: int, expected: list[tuple[int, ...]]) -> None:
    """Mask, row, first column and the one past the last."""
    rows = by_row(unpack(TEXTS), np.full(3, width))
    assert [tuple(each) for each in np.stack(rows, axis=1).tolist()] == expected


def test_frames_may_differ_in_width() -> None:
    rows = by_row(unpack([text([1] * 6), text([1] * 6)]), np.array([6, 3]))
    assert np.stack(rows, axis=1).tolist() == [[0, 0, 0, 6], [1, 0, 0, 3], [1, 1, 0, 3]]


def test_no_masks() -> None:
    runs = unpack([])
    assert [part.tolist() for part in runs] == [[], [], [0]]
    assert pack(runs, np.zeros(0, np.int64)) == []
    assert [part.tolist() for part in by_row(runs, np.zeros(0, np.int64))] == [[]] * 4
