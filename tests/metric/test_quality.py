"""Measures of a segmentation: by hand, and against slow versions of what others publish, on label images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from skimage.metrics import contingency_table
from skimage.segmentation import relabel_sequential

from kitlib.masks import rle
from kitlib.metric.matching import THRESHOLDS
from kitlib.metric.quality import Quality, measure, summarize
from kitlib.records import Cell

seeds = st.integers(0, 2**32 - 1)


def cells(labels: np.ndarray) -> list[Cell]:
    return [Cell(mask, "cell") for mask in rle.from_labels(labels)]


def quality(*images: tuple[np.ndarray, np.ndarray]) -> Quality:
    return summarize([measure(cells(truth), cells(found)) for truth, found in images])


def line(*runs: tuple[int, int], length: int = 100) -> np.ndarray:
    """A label image of one row; each run is a start and a length."""
    labels = np.zeros((1, length), int)
    for number, (start, size) in enumerate(runs, 1):
        labels[0, start : start + size] = number
    return labels


def table(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Pixels that each label has in common with each, by scikit-image; row and column 0 are background."""
    sides = [relabel_sequential(labels)[0] for labels in (truth, found)]
    common = contingency_table(*sides).toarray()
    return np.rint(common).astype(int)


def overlap(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and common pixels of each true cell with each predicted one."""
    common = table(truth, found)
    union = common.sum(1, keepdims=True) + common.sum(0, keepdims=True) - common
    return (common / np.maximum(union, 1))[1:, 1:], common[1:, 1:]


# ------------------------------------------------------------------------------- as others measure it


def stardist_matching(iou: np.ndarray, threshold: float) -> dict[str, float]:
    """What stardist's ``matching`` gives: an IoU of the threshold matches as well."""
    true, predicted = iou.shape
    matched: Sequence[float] = []
    if min(iou.shape) and (iou >= threshold).any():
        cost = -(iou >= threshold).astype(float) - iou / (2 * min(iou.shape))
        rows, columns = linear_sum_assignment(cost)
        matched = [value for value in iou[rows, columns] if value >= threshold]
    tp = len(matched)
    fp, fn = predicted - tp, true - tp
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp) if tp else 0.0,
        "recall": tp / (tp + fn) if tp else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "ap": tp / (tp + fp + fn) if tp else 0.0,
        "panoptic": sum(matched) / (tp + fp / 2 + fn / 2) if tp else 0.0,
        "mean_matched": sum(matched) / tp if tp else 0.0,
    }


@given(seeds)
def test_rates_and_panoptic_quality_are_those_of_stardist(pair, seed: int) -> None:
    truth, found = pair(seed)
    iou, _ = overlap(truth, found)
    ours = quality((truth, found))
    for threshold, rates in zip(THRESHOLDS, ours.rates, strict=True):
        # stardist counts an IoU of exactly the threshold, the competition does not.
        expected = stardist_matching(iou, np.nextafter(threshold, 1))
        for name in ("tp", "fp", "fn"):
            assert getattr(rates, name) == expected[name]
        for name in ("precision", "recall", "f1", "ap"):
            assert (getattr(rates, name) or 0.0) == pytest.approx(expected[name], abs=1e-9)
    expected = stardist_matching(iou, np.nextafter(0.5, 1))
    assert (ours.pq or 0.0) == pytest.approx(expected["panoptic"], abs=1e-9)
    assert (ours.sq or 0.0) == pytest.approx(expected["mean_matched"], abs=1e-9)
    assert ours.map == pytest.approx(np.mean([rates.ap or 0.0 for rates in ours.rates]), abs=1e-9)


@given(seeds)
def test_seg_splits_and_merges_are_those_of_label_overlap(pair, seed: int) -> None:
    truth, found = pair(seed)
    iou, common = overlap(truth, found)
    ours = quality((truth, found))
    areas = np.bincount(truth.ravel())[1:]
    covering = common > areas[areas > 0][:, None] / 2
    best = np.where(covering, iou, 0.0).max(axis=1, initial=0)
    assert (ours.seg or 0.0) == pytest.approx(best.mean() if len(best) else 0.0, abs=1e-9)
    assert ours.split == ((iou > 0.1).sum(axis=1) > 1).sum()
    assert ours.merging == ((iou > 0.1).sum(axis=0) > 1).sum()
    assert ours.area_error == abs((truth > 0).sum() - (found > 0).sum())
    assert ours.count_error == abs(iou.shape[0] - iou.shape[1])


# ------------------------------------------------------------------------------------------ by hand


def test_panoptic_quality_by_hand() -> None:
    """IoU 18 / 20 = 0.9 and 12 / 18 = 2/3; one prediction too many, one cell missed."""
    truth = line((0, 20), (30, 15), (60, 20))
    found = line((0, 18), (33, 15), (90, 5))
    ours = quality((truth, found))
    assert ours.sq == pytest.approx((0.9 + 2 / 3) / 2)
    assert ours.rq == pytest.approx(2 / 3)
    assert ours.pq == pytest.approx((0.9 + 2 / 3) / 3)
    at_50, at_70 = ours.rates[0], ours.rates[4]
    assert at_50[:4] == (0.5, 2, 1, 1)
    assert at_50[4:] == pytest.approx((2 / 3, 2 / 3, 2 / 3, 1 / 2))
    assert at_70[1:] == pytest.approx((1, 2, 2, 1 / 3, 1 / 3, 1 / 3, 1 / 5))


def test_seg_needs_more_than_half_of_the_cell() -> None:
    """Half of the first cell is not enough; all of the second lies in a prediction four times as large."""
    truth = line((0, 20), (40, 10))
    assert quality((truth, line((0, 10)))).seg == 0.0
    assert quality((truth, line((0, 11)))).seg == pytest.approx(11 / 20 / 2)
    assert quality((truth, line((30, 40)))).seg == pytest.approx(10 / 40 / 2)


def test_two_cells_in_one_prediction_both_count_for_seg() -> None:
    assert quality((line((0, 10), (10, 10)), line((0, 20)))).seg == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("parts", "split"),
    [
        ([(0, 10), (10, 10)], 1),  # IoU 1/2 each
        ([(0, 17), (17, 3)], 1),  # 3 / 20 is a part
        ([(0, 18), (18, 2)], 0),  # 2 / 20 = 0.1 is not above 0.1
        ([(0, 7), (7, 7), (14, 6)], 1),  # one cell, however many parts
        ([(0, 20)], 0),
    ],
)
def test_splits_by_hand(parts: list[tuple[int, int]], split: int) -> None:
    whole, cut = line((0, 20)), line(*parts)
    assert (quality((whole, cut)).split, quality((whole, cut)).merging) == (split, 0)
    # The other way round, the same is a merge.
    assert (quality((cut, whole)).split, quality((cut, whole)).merging) == (0, split)


def test_errors_of_count_and_area_by_hand() -> None:
    """10 of 20 pixels and one of two cells; twice the pixels of one cell; nothing but a wrong prediction."""
    images = [
        (line((0, 10), (10, 10)), line((0, 10))),
        (line((0, 10)), line((0, 20))),
        (line(), line((0, 6))),
    ]
    ours = quality(*images)
    assert (ours.images, ours.cells, ours.predicted) == (3, 3, 3)
    assert ours.count_error == pytest.approx((1 + 0 + 1) / 3)
    assert ours.count_error_relative == pytest.approx((1 / 2 + 0) / 2)
    assert ours.area_error == pytest.approx((10 + 10 + 6) / 3)
    assert ours.area_error_relative == pytest.approx((1 / 2 + 1) / 2)


def test_overlapping_cells_cover_their_area_once() -> None:
    twins = [
        Cell(mask, "cell") for mask in (*rle.from_labels(line((0, 10))), *rle.from_labels(line((5, 10))))
    ]
    measured = measure(twins, twins)
    assert (measured.area, measured.predicted_area, measured.overlap) == (15, 15, 5)
    assert measured.matched_iou == 2.0


NOTHING, SOMETHING = line(), line((0, 10), (20, 10))


@pytest.mark.parametrize(
    ("truth", "found", "metric", "precision", "recall", "f1"),
    [
        (SOMETHING, NOTHING, 0.0, None, 0.0, 0.0),
        (NOTHING, SOMETHING, 0.0, 0.0, None, 0.0),
        (NOTHING, NOTHING, 1.0, None, None, None),
    ],
)
def test_without_predictions_or_truth(truth, found, metric, precision, recall, f1) -> None:
    ours = quality((truth, found))
    assert ours.map == metric
    assert (ours.rates[0].precision, ours.rates[0].recall) == (precision, recall)
    assert ours.rates[0].f1 == ours.rates[0].ap == ours.pq == ours.rq == f1
    assert ours.sq is None
    assert ours.seg == (0.0 if truth.any() else None)
    assert (ours.split, ours.merging) == (0, 0)
    assert ours.count_error_relative == (1.0 if truth.any() else None)


# --------------------------------------------------------------------------------------- properties


@given(seeds)
def test_the_truth_is_perfect(pair, seed: int) -> None:
    truth, _ = pair(seed)
    ours = quality((truth, truth))
    expected = 1.0 if truth.any() else None
    assert ours.map == 1.0
    assert ours.pq == ours.sq == ours.rq == ours.seg == expected
    for rates in ours.rates:
        assert rates.precision == rates.recall == rates.f1 == rates.ap == expected
    assert (ours.split, ours.merging, ours.count_error, ours.area_error) == (0, 0, 0, 0)


@given(seeds)
def test_a_cell_cut_in_two_is_one_more_split(pair, seed: int) -> None:
    truth, _ = pair(seed)
    areas = np.bincount(truth.ravel())
    areas[0] = 0
    number = int(areas.argmax()) if truth.any() else 0
    if areas[number] < 2:
        return
    places = np.flatnonzero(truth == number)
    found = truth.copy()
    found.flat[places[: len(places) // 2]] = 999
    ours = quality((truth, found))
    assert (ours.split, ours.merging) == (1, 0)
    assert ours.predicted == ours.cells + 1
    assert ours.area_error == 0


@given(seeds)
def test_numbers_of_labels_do_not_matter(pair, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = pair(seed)
    others = [np.append(0, rng.permutation(1000) + 1)[labels] for labels in (truth, found)]
    ours, again = quality((truth, found)), quality((others[0], others[1]))
    for name in ("map", "seg", "pq", "sq", "split", "merging", "area_error"):
        assert getattr(again, name) == pytest.approx(getattr(ours, name), abs=1e-12, nan_ok=True)
    assert again.rates == ours.rates


@given(seeds, seeds)
def test_images_are_counted_together(pair, first: int, second: int) -> None:
    one, other = pair(first), pair(second)
    both, alone = quality(one, other), [quality(one), quality(other)]
    for number, rates in enumerate(both.rates):
        assert rates.tp == sum(each.rates[number].tp for each in alone)
    assert both.map == pytest.approx(np.mean([each.map for each in alone]))
    assert both.split == sum(each.split for each in alone)
