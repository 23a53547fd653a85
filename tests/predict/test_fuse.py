"""Fusion: by hand, against the paper's words written out slowly, and against the authors' package."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.predict import fuse
from kitlib.predict.cells import soft_mask
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections

SIZE = (60, 80)


def detections(*rows):
    """Detections of (x0, y0, x1, y1, score, class, source), each full of probability 1."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    squares = np.ones((len(table), 4, 4), np.float32)
    return Detections(
        table[:, :4], table[:, 4], table[:, 5].astype(int), squares, table[:, 6].astype(np.int64)
    )


def random_detections(seed, sources=3, cells=12):
    """Each cell seen by some of the sources, a little elsewhere each time."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(cells):
        corner, side = rng.uniform(0, [60, 40]), rng.uniform(5, 20, 2)
        for source in np.flatnonzero(rng.random(sources) < 0.8):
            a, b = corner + rng.normal(0, 1, 2), corner + side + rng.normal(0, 1, 2)
            rows.append((*a, *b, rng.uniform(0.05, 1), rng.integers(3), source))
    return detections(*rows)


def slow_iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def slow_clusters(boxes, scores, iou):
    members, fused = [], []
    for i, box in enumerate(boxes):
        overlaps = [slow_iou(box, other) for other in fused]
        if overlaps and max(overlaps) > iou:
            k = overlaps.index(max(overlaps))
            members[k].append(i)
            fused[k] = np.average(boxes[members[k]], axis=0, weights=scores[members[k]])
        else:
            members.append([i])
            fused.append(box)
    return members, fused


def test_wbf_by_hand():
    found = detections(
        (10, 10, 20, 20, 0.6, 1, 0),
        (12, 10, 22, 20, 0.2, 2, 1),  # the same cell, by another source: IoU 8 / 12
        (50, 10, 60, 20, 0.5, 0, 1),
        (10, 10, 20, 20, 0.3, 2, 0),  # the first again, as another class
    )
    fused = fuse.wbf(found, 2, 0.5)
    assert fused.scores.tolist() == pytest.approx([(0.6 + 0.2) / 2, 0.5 / 2])
    assert fused.classes.tolist() == [1, 0]  # 0.6 against 0.2 + 0.3
    assert fused.agreement.tolist() == [1.0, 0.5]
    assert [m.tolist() for m in fused.members] == [[0, 3, 1], [2]]


@given(st.integers(0, 2000), st.sampled_from([0.3, 0.55, 0.7]))
def test_clusters_are_those_of_the_slow_way(seed, iou):
    found = random_detections(seed)
    order = np.argsort(-found.scores)
    boxes, scores = found.boxes[order], found.scores[order]
    members, fused = slow_clusters(boxes, scores, iou)
    got = fuse.clusters(boxes, scores, iou)
    assert [np.flatnonzero(got.owner == k).tolist() for k in range(len(fused))] == members
    np.testing.assert_allclose(got.boxes, np.reshape(fused, (-1, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_the_same_boxes_and_scores_as_the_authors_package(seed):
    ensemble_boxes = pytest.importorskip("ensemble_boxes", reason="pip install ensemble-boxes to compare")
    found = random_detections(seed, sources=4)
    scale = np.array([100, 100, 100, 100])
    found = found.take((found.boxes > 0).all(axis=1))
    parts = [found.take(found.sources == s) for s in range(4)]
    boxes, scores, _ = ensemble_boxes.weighted_boxes_fusion(
        [p.boxes / scale for p in parts], [p.scores for p in parts], [np.zeros(len(p)) for p in parts]
    )
    fused = fuse.wbf(found, 4, 0.55)
    order = np.argsort(-found.scores)
    ours = fuse.clusters(found.boxes[order], found.scores[order], 0.55).boxes
    once = np.array([len(m) == len(np.unique(found.sources[m])) for m in fused.members])
    apart = np.abs(boxes * scale - ours[:, None]).max(axis=2)  # theirs is in single precision
    same = apart.argmin(axis=1)
    assert apart.shape == (len(ours), len(ours))
    assert apart.min(axis=1).max() < 1e-4
    assert scores[same][once] == pytest.approx(fused.scores[once], abs=1e-6)
    assert once.mean() > 0.5


def test_nms_keeps_the_best_of_each_cell():
    found = detections(
        (10, 10, 20, 20, 0.6, 1, 0),
        (11, 10, 21, 20, 0.7, 2, 1),
        (10, 10, 20, 16, 0.5, 1, 2),  # IoU 0.6 with the first, 6 x 9 / (60 + 100 - 54) with the best
        (50, 10, 60, 20, 0.5, 0, 1),
    )
    fused = fuse.fuse(found, 3, SIZE, PredictConfig(fuse="nms", fuse_iou=0.6))
    assert [m.tolist() for m in fused.members] == [[1], [2], [3]]
    assert fused.scores.tolist() == [0.7, 0.5, 0.5]
    assert fused.agreement.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert fused.classes.tolist() == [2, 1, 0]


def test_nms_compares_masks_and_not_boxes():
    found = detections((10, 10, 30, 30, 0.6, 0, 0), (10, 10, 30, 30, 0.5, 0, 1))
    found.squares[0] = np.tri(4, k=-1)
    found.squares[1] = np.tri(4, k=-1).T
    assert len(fuse.fuse(found, 2, SIZE, PredictConfig(fuse="nms")).scores) == 2


@pytest.mark.parametrize("way", ["wbf", "nms"])
def test_nothing_to_fuse(way):
    fused = fuse.fuse(detections(), 3, SIZE, PredictConfig(fuse=way))
    assert len(fused.scores) == len(fused.members) == len(fused.best(0.0, 9)) == 0


def test_masks_without_pixels_do_no_harm():
    found = detections((10, 10, 20, 20, 0.6, 1, 0), (10, 10, 20, 20, 0.5, 1, 1), (10, 10, 20, 20, 0.4, 1, 1))
    found.squares[1:] = 0
    assert len(fuse.fuse(found, 2, SIZE, PredictConfig(fuse="nms", fuse_iou=0.6)).scores) == 3


def test_soft_masks_are_averaged_in_the_frame():
    members = detections((10, 10, 14, 14, 0.6, 0, 0), (12, 10, 16, 14, 0.2, 0, 1))
    patch = soft_mask(members, np.array([0, 1]), *SIZE)
    assert (patch.x, patch.y) == (9, 9)
    np.testing.assert_allclose(patch.values[3], [0, 0.75, 0.75, 1, 1, 0.25, 0.25, 0], atol=1e-6)
