"""Views and tiles: rotated, enlarged and cut, and back again without a trace."""

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kitlib.predict.config import Orientation, PredictConfig
from kitlib.predict.detections import Detections
from kitlib.predict.views import ORIENTATIONS, cores, grid, views

NUMPYS = {
    "none": lambda a: a,
    "flip_h": np.fliplr,
    "flip_v": np.flipud,
    "rot90": np.rot90,
    "rot180": lambda a: np.rot90(a, 2),
    "rot270": lambda a: np.rot90(a, 3),
    "transpose": np.transpose,
    "antitranspose": lambda a: np.rot90(a, 2).T,
}


def test_there_are_the_eight_orientations_of_the_settings():
    assert set(ORIENTATIONS) == set(NUMPYS) == set(get_args(Orientation))


@pytest.mark.parametrize("orientation", NUMPYS)
def test_a_view_is_the_tile_in_its_orientation(orientation):
    frame = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    for view in views(PredictConfig(tta=(orientation,), tile=(5, 7)), 12, 16):
        x0, y0, x1, y1 = view.tile
        np.testing.assert_array_equal(view.image(frame), NUMPYS[orientation](frame[y0:y1, x0:x1]))
        assert view.image(frame).shape == view.shape


def test_a_view_is_resized_before_it_is_rotated():
    frame = np.zeros((10, 20), np.uint8)
    (view,) = views(PredictConfig(scales=(1.5,), tta=("rot90",)), 10, 20)
    assert view.image(frame).shape == view.shape == (30, 15)


@pytest.mark.parametrize("orientation", NUMPYS)
def test_boxes_and_squares_come_back_exactly(orientation):
    """A box at (5, 1) of 8 x 4 pixels in the frame, its square with a mark near the top left."""
    square = np.zeros((4, 4), np.float32)
    square[0, 1] = 1
    marked = np.zeros((12, 16))
    marked[1, 5], marked[4, 12] = 1, 2  # the box's first and last pixel
    ys, xs = np.nonzero(NUMPYS[orientation](marked))
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float64)
    seen = Detections(
        box * 2, np.array([0.5]), np.array([1]), NUMPYS[orientation](square)[None], np.array([7])
    )
    (view,) = views(PredictConfig(scales=(2.0,), tta=(orientation,)), 12, 16)
    back = view.back(seen)
    np.testing.assert_array_equal(back.boxes, [[5, 1, 13, 5]])
    np.testing.assert_array_equal(back.squares, [square])
    assert (back.scores, back.classes, back.sources) == (0.5, 1, 7)


def test_sources_are_scales_and_orientations_and_equal_shapes_come_together():
    config = PredictConfig(scales=(1.0, 2.0), tta=("none", "rot90", "flip_h"), tile=(20, 30), stride=(20, 30))
    found = views(config, 40, 60)
    assert [v.source for v in found] == [s for s in range(6) for _ in range(4)]
    assert len(list(itertools.groupby(v.shape for v in found))) == 4
    assert {(v.scale, v.orientation) for v in found} == set(itertools.product(config.scales, config.tta))


@pytest.mark.parametrize("tile", [None, (40, 60), (41, 600), (5000, 5000)])
def test_a_tile_larger_than_the_frame_is_the_frame(tile):
    (view,) = views(PredictConfig(tile=tile), 40, 60)
    assert view.tile == (0, 0, 60, 40)
    assert np.isinf(view.core).all()


def test_smaller_views_save_memory():
    def largest(config, smaller):
        return max(h * w for h, w in (v.shape for v in views(config, 40, 60, smaller)))

    for config in (
        PredictConfig(),
        PredictConfig(tile=(20, 30)),
        PredictConfig(tile=(20, 30), stride=(8, 9)),
    ):
        assert largest(config, 2) * 4 == largest(config, 1)


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 60))
def test_cores_share_out_the_frame(side, tile, stride):
    parts = grid(side, 7, (tile, 7), (min(stride, tile), 7))
    owned = cores(parts)
    assert owned[0, 1] == -np.inf
    assert owned[-1, 3] == np.inf
    np.testing.assert_array_equal(owned[1:, 1], owned[:-1, 3])
    inner = owned[1:, 1]
    assert ((parts[1:, 1] <= inner) & (inner <= parts[:-1, 3])).all()


@given(st.integers(5, 90), st.integers(2, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0.01, 1))
def test_no_cell_is_lost_and_none_that_a_tile_sees_whole_is_doubled(side, tile, stride, place, size):
    parts = grid(7, side, (7, tile), (7, min(stride, tile)))
    low, high = place * side * (1 - size), place * side * (1 - size) + size * side
    assume(not np.isin([low, high], parts).any())  # where it could end at the border or just be cut there
    owners = []
    for part, core in zip(parts, cores(parts), strict=True):
        seen = max(low, part[0]), min(high, part[2])
        if seen[0] < seen[1] and core[0] <= sum(seen) / 2 < core[2]:
            owners.append(seen)
    assert owners
    if ((parts[:, 0] <= low) & (high <= parts[:, 2])).any():
        assert owners == [(low, high)]


# -------------------------------------------------------------------------------------------- tiles


def test_the_16_tiles_of_the_6th_place():
    boxes = grid(520, 704, (208, 281), (104, 140))
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
    assert grid(*size, (100, 100), (50, 50)).tolist() == [[0, 0, size[1], size[0]]]


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(1, 120),
    stride=st.integers(1, 120),
)
def test_tiles_cover_the_frame_and_stay_inside(height, width, tile, stride):
    boxes = grid(height, width, (tile, tile), (min(stride, tile), min(stride, tile)))
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert (x1 - x0, y1 - y0) == (min(tile, width), min(tile, height))
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len({tuple(b) for b in boxes.tolist()}) == len(boxes)
