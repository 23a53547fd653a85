"""Raw instances as arrays: what is no detection is not among them."""

import numpy as np

from kitlib.predict.detections import Detections


def test_from_instances_take_and_concat(instances):
    raw = instances((40, 60), [[1, 2, 3, 4], [5, 6, 7, 8]], [0.25, 0.5], [2, 1])
    found = Detections.from_instances(raw, source=3)
    both = Detections.concat([found.take(np.array([1])), found.take(np.array([True, False]))])
    assert both.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert both.scores.tolist() == [0.5, 0.25]
    assert both.classes.tolist() == [1, 2]
    assert both.squares.shape == (2, 28, 28)
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
