"""Raw instances as arrays, and their masks pasted: by hand, and against detectron2's full-frame paste."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kitlib.model import compat
from kitlib.predict.detections import Detections, paste

# Before detectron2 is imported.
compat.apply()
from detectron2.layers import mask_ops  # noqa: E402


def test_from_instances_take_and_concat(instances):
    raw = instances((40, 60), [[1, 2, 3, 4], [5, 6, 7, 8]], [0.25, 0.5], [2, 1])
    found = Detections.from_instances(raw, source=3)
    both = Detections.concat([found.take(np.array([1])), found.take(np.array([True, False]))])
    assert both.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert both.scores.tolist() == [0.5, 0.25]
    assert both.classes.tolist() == [1, 2]
    assert np.shape(both.squares) == (2, 28, 28)
    assert both.sources.tolist() == [3, 3]


def test_boxes_without_area_and_numbers_that_are_none_are_dropped(instances):
    nan, inf = float("nan"), float("inf")
    boxes = [[0, 0, 4, 4], [nan, 0, 4, 4], [0, 0, inf, 4], [3, 0, 3, 4], [0, 5, 4, 4], [0, 0, 4, 4]]
    found = Detections.from_instances(instances((9, 9), boxes, [0.9, 0.9, 0.9, 0.9, 0.9, nan]))
    assert found.boxes.tolist() == [[0, 0, 4, 4]]
    assert len(found.squares) == len(found.classes) == len(found.sources) == 1


def test_a_mask_that_is_none_costs_only_its_own_detection(instances):
    raw = instances((9, 9), [[0, 0, 4, 4], [1, 1, 5, 5]], [0.9, 0.8])
    raw.pred_masks[0, 0, 3, 3] = float("nan")
    assert Detections.from_instances(raw).boxes.tolist() == [[1, 1, 5, 5]]


def test_no_detections(instances):
    none = Detections.from_instances(instances((9, 9), [], []))
    assert len(Detections.concat([none, none])) == 0


# ------------------------------------------------------------------------------------------ pasting


def smooth_square(seed, size=28):
    """A blob of probabilities with soft borders, as mask heads give them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    angle = np.arctan2(y, x)
    radius = 0.7 + 0.2 * np.sin(rng.integers(1, 5) * angle + rng.uniform(0, 6))
    return (1 / (1 + np.exp(12 * (np.hypot(x, y) - radius)))).astype(np.float32)


def in_frame(square, box, height, width, threshold=0.5):
    patch = paste(square, np.asarray(box, np.float64), height, width)
    frame = np.zeros((height, width), bool)
    h, w = patch.values.shape
    frame[patch.y : patch.y + h, patch.x : patch.x + w] = patch.values >= threshold
    return frame


def theirs(square, box, height, width, threshold=0.5):
    boxes = torch.tensor(np.asarray([box]), dtype=torch.float32)
    return mask_ops.paste_masks_in_image(torch.from_numpy(square[None]), boxes, (height, width), threshold)[
        0
    ].numpy()


def test_a_box_of_the_square_s_own_size_is_copied():
    square = np.arange(9, dtype=np.float32).reshape(3, 3) / 10
    patch = paste(square, np.array([4.0, 5.0, 7.0, 8.0]), 20, 30)
    assert (patch.x, patch.y) == (3, 4)
    np.testing.assert_allclose(patch.values, np.pad(square, 1), atol=1e-6)


def test_a_half_pixel_shift_takes_means():
    square = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    patch = paste(square, np.array([4.5, 5.0, 6.5, 7.0]), 20, 30)
    np.testing.assert_allclose(patch.values[1], [0, 0.5, 0.5, 0, 0], atol=1e-6)  # pixels 3 to 7 of row 5


@pytest.mark.parametrize(
    "box",
    [
        (40, 5, 50, 10),  # right of the frame
        (5, -20, 9, -10),  # above it
        (5, 5, 5, 9),  # no width
        (9, 5, 5, 9),  # inside out
    ],
)
def test_nothing_inside_gives_nothing(box):
    assert not in_frame(np.ones((28, 28), np.float32), box, 20, 30).any()


def test_a_box_that_sticks_out_is_cut():
    frame = in_frame(np.ones((28, 28), np.float32), (-5, -5, 10, 8), 20, 30)
    expected = np.zeros((20, 30), bool)
    expected[:8, :10] = True
    np.testing.assert_array_equal(frame, expected)


def test_the_full_frame():
    assert in_frame(np.ones((28, 28), np.float32), (0, 0, 30, 20), 20, 30).all()


@given(
    st.integers(0, 20),
    st.floats(-20, 75),
    st.floats(-20, 60),
    st.floats(0.3, 120),
    st.floats(0.3, 120),
    st.sampled_from([0.45, 0.5, 0.6]),
)
def test_the_same_mask_as_detectron2(seed, x, y, w, h, threshold):
    assume(x + w > 1)
    assume(y + h > 1)
    square, box = smooth_square(seed), (x, y, x + w, y + h)
    full = theirs(square, box, 64, 80, threshold)
    surely, perhaps = (in_frame(square, box, 64, 80, threshold + e) for e in (1e-4, -1e-4))
    assert not (surely & ~full).any()
    assert not (full & ~perhaps).any()


def test_a_crowd_as_detectron2_has_it():
    rng = np.random.default_rng(0)
    for seed in range(100):
        x, y, w, h = *rng.uniform(0, 50, 2), *rng.uniform(5, 60, 2)
        square, box = smooth_square(seed), (x, y, x + w, y + h)
        ours, full = in_frame(square, box, 64, 80), theirs(square, box, 64, 80)
        assert (ours & full).sum() > 0.99 * (ours | full).sum()
