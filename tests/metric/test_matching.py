"""Pairs of cells and their largest matching, against every assignment and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from kitlib.masks import rle
from kitlib.metric import matching


def bar(start: int, length: int) -> rle.RLE:
    """A run of pixels in a frame of one row: IoUs of bars are ratios of lengths."""
    return rle.from_runs(np.array([start]), np.array([length]), 1, 420)


def matches(iou: np.ndarray) -> np.ndarray:
    return matching.true_positives(matching.of_matrix(iou))


def test_the_matching_is_the_largest_where_greedy_would_lose_a_pair() -> None:
    """Best-first takes (0, 0) of IoU .9 and leaves cell 1 and prediction 1 alone; crossed, both match."""
    iou = np.array([[0.9, 0.6], [0.6, 0.1]])
    assert matches(iou).tolist() == [2, 2, 1, 1, 1, 1, 1, 1, 0, 0]


def slow_matches(iou: np.ndarray, threshold: float) -> int:
    """The largest matching by trying every assignment."""
    cells, predicted = iou.shape
    if cells > predicted:
        return slow_matches(iou.T, threshold)
    orders = itertools.permutations(range(predicted), cells)
    return max((sum(iou[i, j] > threshold for i, j in enumerate(order)) for order in orders), default=0)


sizes = st.tuples(st.integers(0, 5), st.integers(0, 5))


@given(sizes, st.integers(0, 2**32 - 1))
def test_matches_agree_with_trying_every_assignment(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    iou = rng.choice([0.0, 0.3, 0.5, 0.55, 0.62, 0.7, 0.85, 1.0], size)
    expected = [slow_matches(iou, t) for t in matching.THRESHOLDS]
    assert matches(iou).tolist() == expected


@settings(max_examples=20)
@given(st.integers(1, 120), st.integers(1, 120), st.floats(0.01, 0.3), st.integers(0, 2**32 - 1))
def test_matches_of_crowds_agree_with_scipy(cells: int, found: int, density: float, seed: int) -> None:
    """Far more candidates than cells ever have: long paths, and rows that find none."""
    rng = np.random.default_rng(seed)
    iou = np.where(rng.random((cells, found)) < density, rng.uniform(0.45, 1, (cells, found)), 0)
    expected = [(maximum_bipartite_matching(csr_array(iou > t)) >= 0).sum() for t in matching.THRESHOLDS]
    assert matches(iou).tolist() == expected


def test_a_thousand_predictions_of_the_same_two_cells_take_no_longer() -> None:
    """Every search but two is in vain; each would walk through all candidates again."""
    assert matches(np.full((2, 1000), 0.9)).tolist() == [2] * 8 + [0] * 2
    assert matches(np.full((1000, 300), 0.9)).tolist() == [300] * 8 + [0] * 2


def test_a_crowd_is_matched_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = [bar(i * 10, 9) for i in range(30)]
    found = [bar(i * 10 + i % 3, 9) for i in range(40)]
    whole = matching.pairs(truth, found)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 7 * 40)
    parts = matching.pairs(truth, found)
    for column in ("true", "predicted", "iou"):
        assert getattr(parts, column).tolist() == getattr(whole, column).tolist()
    assert matching.true_positives(parts)[0] == 30


def best_sum(iou: np.ndarray) -> float:
    """The highest sum of IoUs of the assignments with the most pairs above 0.5, by trying every one."""
    cells, predicted = iou.shape
    if cells > predicted:
        return best_sum(iou.T)
    orders = itertools.permutations(range(predicted), cells)
    chosen = ([iou[i, j] for i, j in enumerate(order) if iou[i, j] > 0.5] for order in orders)
    return max(((len(values), sum(values)) for values in chosen), default=(0, 0.0))[1]


@given(sizes, st.integers(0, 2**32 - 1))
def test_the_sum_of_the_matches_is_the_highest(size: tuple[int, int], seed: int) -> None:
    iou = np.random.default_rng(seed).choice([0.0, 0.3, 0.5, 0.55, 0.62, 0.7, 0.85, 1.0], size)
    assert matching.matched(matching.of_matrix(iou)).iou.sum() == pytest.approx(best_sum(iou), abs=1e-12)


def test_a_pair_more_counts_more_than_a_higher_iou() -> None:
    """(0, 0) of IoU 1 alone, or two pairs of 0.51."""
    iou = np.array([[1.0, 0.51], [0.51, 0.0]])
    assert matching.matched(matching.of_matrix(iou)).iou.sum() == pytest.approx(1.02)
