"""COCO's text of run lengths against pycocotools, which writes and reads it one mask at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from kitlib.masks.runs import compress, expand

# Small counts take one character, those of a large frame up to five, negative differences a sign.
runs = st.one_of(st.integers(0, 40), st.integers(0, 2**24))
masks = st.lists(st.lists(runs, min_size=1, max_size=12), max_size=5)


def joined(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, lists)])
    return np.array([count for each in lists for count in each], np.int64), offsets


def coco_text(numbers: list[int]) -> bytes:
    total = sum(numbers)
    return coco.frPyObjects({"size": [total, 1], "counts": numbers}, total, 1)["counts"]


@given(masks)
def test_the_texts_are_those_of_pycocotools(lists: list[list[int]]) -> None:
    text, bounds = compress(*joined(lists))
    found = [text[a:b] for a, b in itertools.pairwise(bounds.tolist())]
    assert found == [coco_text(numbers) for numbers in lists]


@given(masks)
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


def test_nothing_is_nothing() -> None:
    text, bounds = compress(*joined([]))
    assert (text, bounds.tolist()) == (b"", [0])
    values, offsets = expand([])
    assert (values.tolist(), offsets.tolist()) == ([], [0])


def test_what_was_given_is_not_changed() -> None:
    values, offsets = joined([[5, 6, 7, 8, 9]])
    compress(values, offsets)
    assert values.tolist() == [5, 6, 7, 8, 9]
