"""Tile grids: by hand, and that nothing is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.inputs import tiles


def test_the_16_tiles_of_the_6th_place():
    boxes = tiles.grid(520, 704, (208, 281), (104, 140))
    assert len(boxes) == 16
    assert boxes[:4].tolist() == [
        [0, 0, 281, 208],
        [141, 0, 422, 208],
        [282, 0, 563, 208],
        [423, 0, 704, 208],
    ]
    assert sorted(set(boxes[:, 1].tolist())) == [0, 104, 208, 312]


@pytest.mark.parametrize("size", [(50, 60), (100, 100), (1, 1)])
def test_a_frame_within_a_tile_is_one_tile(size):
    assert tiles.grid(*size, (100, 100), (50, 50)).tolist() == [[0, 0, size[1], size[0]]]


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(1, 120),
    stride=st.integers(1, 120),
)
def test_tiles_cover_the_frame_and_stay_inside(height, width, tile, stride):
    boxes = tiles.grid(height, width, (tile, tile), (min(stride, tile), min(stride, tile)))
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert (x1 - x0, y1 - y0) == (min(tile, width), min(tile, height))
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len({tuple(b) for b in boxes.tolist()}) == len(boxes)
