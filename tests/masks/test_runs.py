"""Runs of several masks at once: their counts and COCO's text against pycocotools, and cut into rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from kitlib.masks.runs import Runs, by_row, compress, expand, is_whole, pack, unpack

# ---------------------------------------------------------------------------------- counts


# Small counts take one character, those of a large frame up to five, negative differences a sign.
counts = st.one_of(st.integers(0, 40), st.integers(0, 2**24))
masks_of_counts = st.lists(st.lists(counts, min_size=1, max_size=12), max_size=5)


def joined(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, lists)])
    return np.array([count for each in lists for count in each], np.int64), offsets


def coco_text(numbers: list[int]) -> bytes:
    total = sum(numbers)
    return coco.frPyObjects({"size": [total, 1], "counts": numbers}, total, 1)["counts"]


@given(masks_of_counts)
def test_the_texts_are_those_of_pycocotools(lists: list[list[int]]) -> None:
    text, bounds = compress(*joined(lists))
    found = [text[a:b] for a, b in itertools.pairwise(bounds.tolist())]
    assert found == [coco_text(numbers) for numbers in lists]
    assert all(map(is_whole, found))


# "P" is the digit 0 of a number that goes on; "0" to "o" are all digits.
@pytest.mark.parametrize("text", [b"P", b"11P", b"1\x001", b"/", b"1p", b"\xff"])
def test_a_text_that_is_cut_short_or_has_other_letters_is_not_whole(text: bytes) -> None:
    assert not is_whole(text)


@given(masks_of_counts)
def test_the_counts_come_back(lists: list[list[int]]) -> None:
    values, offsets = expand([coco_text(numbers) if numbers else b"" for numbers in lists])
    assert [values[a:b].tolist() for a, b in itertools.pairwise(offsets)] == lists


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], b"0"),
        ([15], b"?"),  # the most that one character holds
        ([16], b"`0"),
        ([0, 0, 0, 31], b"000o0"),  # the fourth is stored as the difference to the second
        ([0, 31, 0, 0], b"0o00QO"),  # -31
    ],
)
def test_texts_by_hand(numbers: list[int], text: bytes) -> None:
    assert compress(*joined([numbers]))[0] == text == coco_text(numbers)


def test_no_counts() -> None:
    text, bounds = compress(*joined([]))
    assert (text, bounds.tolist()) == (b"", [0])
    values, offsets = expand([])
    assert (values.tolist(), offsets.tolist()) == ([], [0])


def test_what_was_given_is_not_changed() -> None:
    values, offsets = joined([[5, 6, 7, 8, 9]])
    compress(values, offsets)
    assert values.tolist() == [5, 6, 7, 8, 9]


# ---------------------------------------------------------------------------------- runs


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
