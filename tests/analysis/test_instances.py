"""Recall by box and mask, and reliability of scores: worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.calibration import calibration_curve
from torchvision.ops import box_iou

from kitlib.analysis import instances
from kitlib.masks import rle
from kitlib.records import Cell

SIZE = (60, 100)


def diagonal(side: int, x: int, width: int = 3) -> Cell:
    """A band along the diagonal of a square: a mask that fills little of its box."""
    mask = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) < width
    return Cell(rle.from_crop(mask, x, 0, *SIZE), "cort", 0.5)


def test_boxes_and_masks_are_reached_apart(frame, cell) -> None:
    """A square is reached by box and mask; a band of 20 x 20 by a full square, whose box is right and whose
    mask is not; a third one is not reached at all."""
    band = diagonal(20, 30)
    share = rle.areas([band.mask])[0] / 400
    truth = frame(cell(0, 0, 10, 10), band, cell(80, 0, 10, 10))
    predicted = frame(cell(0, 0, 10, 8, 0.1), cell(30, 0, 20, 20, 0.05))
    table = instances.recall([truth], [predicted])
    assert table.index.tolist() == ["cort"]
    assert table.loc["cort"].tolist() == pytest.approx([3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, (0.8 + share) / 2])


def test_masks_in_true_boxes_stand_beside_those_in_found_boxes(frame, cell) -> None:
    """Two cells of three are drawn, half and whole; a frame in which nothing was drawn does not count."""
    truth = [
        frame(cell(0, 0, 10, 10), cell(20, 0, 10, 10), cell(40, 0, 10, 10)),
        frame(cell(0, 0, 5, 5), name="b"),
    ]
    drawn = [frame(cell(0, 0, 10, 5), cell(20, 0, 10, 10)), frame(name="b")]
    row = instances.recall(truth, [], drawn).loc["cort"]
    assert row["mask IoU in true boxes"] == 0.5  # the median of 0.5, 1 and 0
    assert np.isnan(row["mask IoU where the box reaches 0.7"])
    assert "mask IoU in true boxes" not in instances.recall(truth, [])


def test_recall_at_exactly_a_bound_does_not_count(frame, cell) -> None:
    row = instances.recall([frame(cell(0, 0, 10, 10))], [frame(cell(0, 0, 10, 5, 0.9))]).loc["cort"]
    assert row["box recall at 0.5"] == 0
    assert row["mask recall at 0.5"] == 0
    assert np.isnan(row["mask IoU where the box reaches 0.7"])


def test_types_and_all_and_frames_without_predictions(frame, cell) -> None:
    one = cell(0, 0, 10, 10)
    truth = [frame(one), frame(one, one, name="b", category="astro"), frame(name="c", category="bare")]
    table = instances.recall(truth, [frame(one)])
    assert table.index.tolist() == ["astro", "bare", "cort", "all"]
    assert table["cells"].tolist() == [2, 0, 1, 3]
    assert table["mask recall at 0.7"].tolist() == pytest.approx([0, np.nan, 1, 1 / 3], nan_ok=True)
    assert instances.recall([], []).empty


def test_box_iou_is_torchvision_s() -> None:
    import torch

    corners = np.random.default_rng(0).integers(0, 40, (30, 2))
    boxes = np.concatenate([corners, corners + np.random.default_rng(1).integers(1, 30, (30, 2))], axis=1)
    expected = box_iou(*(torch.from_numpy(part).double() for part in (boxes[:10], boxes[10:]))).numpy()
    assert instances.box_iou(boxes[:10], boxes[10:]) == pytest.approx(expected)


def test_the_better_of_two_instances_matches(frame, cell) -> None:
    truth = frame(cell(0, 0, 10, 10), cell(40, 0, 10, 10))
    predicted = frame(
        *(cell(0, 0, 10, 10, 0.12), cell(0, 0, 10, 9, 0.88)),
        *(cell(40, 0, 10, 9, 0.82), cell(70, 0, 10, 10, 0.86)),
    )
    low, high = instances.reliability([truth], [predicted])
    assert (low.instances, low.matched, low.score) == (1, 0.0, pytest.approx(0.12))
    assert (high.instances, high.matched) == (3, pytest.approx(2 / 3))
    assert high.score == pytest.approx((0.88 + 0.82 + 0.86) / 3)


def test_an_instance_takes_the_cell_that_fits_it_best(frame, cell) -> None:
    """Two true cells overlap; the better instance has an IoU above 0.5 with both."""
    truth = frame(cell(0, 0, 10, 10), cell(2, 0, 10, 10))
    predicted = frame(cell(2, 0, 10, 10, 0.9), cell(0, 0, 10, 10, 0.8))
    assert [each.matched for each in instances.reliability([truth], [predicted])] == [1.0, 1.0]


def test_bins_are_those_of_scikit_learn(frame, cell) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200)
    hit = rng.random(200) < scores
    true, found = [], []
    for n, (score, matches) in enumerate(zip(scores.tolist(), hit, strict=True)):
        true.append(frame(cell(0, 0, 10, 10), name=str(n)))
        found.append(frame(cell(0, 0, 10, 10) if matches else cell(50, 0, 9, 9), name=str(n)))
        found[-1] = frame(Cell(found[-1].cells[0].mask, "cort", score), name=str(n))
    shares, means = calibration_curve(hit, scores, n_bins=10)
    bins = instances.reliability(true, found)
    assert [each.matched for each in bins] == pytest.approx(shares)
    assert [each.score for each in bins] == pytest.approx(means)
    assert all(each.low <= each.matched <= each.high for each in bins)
    error = np.average(np.abs(shares - means), weights=[each.instances for each in bins])
    assert instances.calibration_error(bins) == pytest.approx(error)


def test_a_score_of_one_and_no_instances(frame, cell) -> None:
    (only,) = instances.reliability([frame(cell(0, 0, 9, 9))], [frame(cell(0, 0, 9, 9, 1.0))])
    assert (only.score, only.matched, only.high) == (1.0, 1.0, 1.0)
    assert instances.reliability([frame()], []) == []
    assert instances.calibration_error([]) == 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (3, 10), (500, 1000)])
def test_wilson_s_interval_is_near_the_exact_one(successes: int, trials: int) -> None:
    """Jeffreys' interval is close to it; for many trials they agree."""
    low, high = instances.wilson(successes, trials)
    exact = beta.ppf([0.05, 0.95], successes + 0.5, trials - successes + 0.5)
    assert (low, high) == pytest.approx(exact, abs=0.3 / np.sqrt(trials))
    assert 0 <= low <= successes / trials <= high <= 1
