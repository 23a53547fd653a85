"""Parts and holes from runs, against scikit-image on pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage import measure

from kitlib.masks import rle
from kitlib.masks.topology import topology

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.lists(npst.arrays(bool, size), min_size=1, max_size=4)
)


def by_pixels(mask):
    padded = np.pad(mask, 1)
    return measure.label(padded, connectivity=2).max(), measure.label(~padded, connectivity=1).max() - 1


@given(masks)
def test_parts_and_holes_agree_with_pixels(arrays):
    found = topology([rle.from_mask(array) for array in arrays])
    assert list(zip(found.parts, found.holes, strict=True)) == [by_pixels(array) for array in arrays]


@given(masks)
def test_each_part_has_the_pixels_of_one_component(arrays):
    found = topology([rle.from_mask(array) for array in arrays])
    for index, array in enumerate(arrays):
        labels = measure.label(array, connectivity=2)
        sizes = sorted(np.bincount(labels[labels > 0])[1:]) if array.any() else []
        mine = found.owner == index
        parts = np.unique(found.part[mine], return_inverse=True)[1]
        assert sorted(np.bincount(parts, weights=found.lengths[mine])) == sizes


@pytest.mark.parametrize(
    ("rows", "parts", "holes"),
    [
        (["....", "...."], 0, 0),  # empty
        ([".#..", "...."], 1, 0),  # one pixel
        (["####", "####"], 1, 0),  # the whole frame: one run over both rows
        (["###.", "#.#.", "###."], 1, 1),  # a hole
        (["###.", "#.#.", "##.."], 1, 1),  # a hole closed across a corner
        (["###.", "#.#.", "#.#."], 1, 0),  # an open bay
        (["#...", ".#..", "...#"], 2, 0),  # joined across a corner, and apart
        (["...#", "#..."], 2, 0),  # the end of a row is no neighbour of the next row's start
        (["#####", "#...#", "#.#.#", "#...#", "#####"], 2, 1),  # a part inside a hole
        (["#####", "#.#.#", "#####"], 1, 2),
    ],
)
def test_by_hand(rows, parts, holes):
    found = topology([rle.from_mask(np.array([[c == "#" for c in row] for row in rows]))])
    assert (found.parts.tolist(), found.holes.tolist()) == ([parts], [holes])


def test_masks_of_one_frame_do_not_meet():
    """The last row of one mask and the first of the next would touch if they lay end to end."""
    bottom, top = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    bottom[2], top[0] = True, True
    assert topology([rle.from_mask(bottom), rle.from_mask(top)]).parts.tolist() == [1, 1]


def test_no_masks():
    assert topology([]).parts.tolist() == []
