"""Expected gain: the rule by hand, the best of all subsets, worth more than thresholds where calibrated."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from kitlib import config, metric
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.calibration import Calibration, calibrate
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame


def flat(scores, probabilities, cells=1.0):
    """A calibration that is alike at all IoU thresholds."""
    return Calibration(tuple(scores), (tuple(probabilities),) * 10, cells)


def test_one_more_instance_by_hand():
    """Two sure cells of two, S = 1: a third has to match with more than 1 / 2, as n = 2 + p."""
    assert flat((0, 1), (0, 1)).number(np.array([1.0, 1.0, 0.4])) == 2
    # Four true cells for two found: S = 2 / 4, and p > S / (1 + S) = 1 / 3 is enough.
    two = np.array([1.0, 1.0, 0.35]), np.array([1.0, 1.0, 0.30])
    assert [flat((0, 1), (0, 1), 4 / s.sum()).number(s) for s in two] == [3, 2]


def test_nothing_and_something():
    assert flat((0, 1), (0, 1)).number(np.array([])) == 0
    assert flat((0, 1), (0, 0)).number(np.array([0.9, 0.2])) == 1


@pytest.mark.parametrize("seed", range(20))
def test_no_subset_is_expected_to_be_better(seed):
    """Every subset of eight instances, each p_t falling with t and with the score."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.random(8))[::-1]
    match = np.sort(np.sort(rng.random((10, 5)), axis=1), axis=0)[::-1]
    found = Calibration(tuple(np.linspace(0, 1, 5).tolist()), tuple(map(tuple, match.tolist())), 1.3)
    p = found.probabilities(scores)
    cells = 1.3 * p[:, 0].sum()

    def expected(chosen):
        tp = p[list(chosen)].sum(axis=0)
        return (tp / (cells + len(chosen) - tp)).mean()

    subsets = (c for k in range(1, 9) for c in itertools.combinations(range(8), k))
    assert expected(range(found.number(scores))) == pytest.approx(max(map(expected, subsets)))


def simulated(rng, frames):
    """Easy and hard frames: scores, IoUs, the number of cells, the metric if the first k are kept.

    A candidate of score s matches with probability 0.9 s, at an IoU of 0.5 to 1; one cell in five is missed.
    """
    result = []
    for _ in range(frames):
        scores = np.sort(rng.beta(0.5, rng.uniform(0.2, 3), rng.integers(50, 400)))[::-1]
        iou = np.where(rng.random(len(scores)) < 0.9 * scores, rng.uniform(0.5, 1, len(scores)), 0.0)
        cells = int((iou > 0.5).sum() * 1.25) + 1
        matched = np.cumsum(np.vstack([np.zeros(10), iou[:, None] > metric.THRESHOLDS]), axis=0)
        number = np.arange(len(scores) + 1)[:, None]
        result.append((scores, iou, cells, metric.precision(matched, cells, number).mean(axis=1)))
    return result


@pytest.mark.parametrize("seed", range(3))
def test_better_than_the_best_single_threshold(seed):
    """Calibrated on other frames, against the threshold that is the best on these very frames."""
    rng = np.random.default_rng(seed)
    learned, judged = simulated(rng, 150), simulated(rng, 300)
    scores, iou = (np.concatenate([f[i] for f in learned]) for i in (0, 1))
    found = calibrate(scores, iou[:, None] > metric.THRESHOLDS, sum(f[2] for f in learned))
    ours = np.mean([value[found.number(s)] for s, _, _, value in judged])
    single = [
        np.mean([value[np.searchsorted(-s, -limit)] for s, _, _, value in judged])
        for limit in np.linspace(0, 1, 101)
    ]
    assert ours > max(single)


def test_calibration_is_the_share_of_matches():
    rng = np.random.default_rng(0)
    scores = rng.random(20000)
    iou = np.where(rng.random(20000) < scores**2, 0.72, 0.3)
    found = calibrate(scores, iou[:, None] > metric.THRESHOLDS, 10000)
    p = found.probabilities(np.array([0.2, 0.5, 0.9]))
    assert p[:, 0] == pytest.approx([0.04, 0.25, 0.81], abs=0.05)
    assert (p[:, :5] == p[:, :1]).all()  # 0.72 passes 0.50 to 0.70
    assert (p[:, 5:] == 0).all()
    assert found.cells == pytest.approx(1.5, abs=0.05)


def test_chosen_among_instances_of_any_score():
    cells = tuple(
        Cell(rle.from_crop(np.ones((5, 5), bool), x, 0, 9, 60), "cort", s)
        for x, s in ((0, 0.9), (10, 0.3), (20, 0.2), (30, 0.01))
    )
    by_type = {"cort": flat((0, 0.1, 0.2, 1), (0, 0, 0.9, 1)), "default": flat((0, 1), (0, 0))}
    post = PostConfig(calibrations=by_type)
    # The score threshold of 0.5 plays no part.
    frame = Frame("a", None, 9, 60, cells, "cort")
    assert [c.score for c in thresholds.apply(frame, post).cells] == [0.9, 0.3, 0.2]
    other = replace(frame, category="astro")
    assert [c.score for c in thresholds.apply(other, post).cells] == [0.9]
    assert thresholds.apply(replace(frame, cells=()), post).cells == ()


def test_kept_as_plain_numbers(tmp_path):
    rng = np.random.default_rng(0)
    post = PostConfig(calibrations={"default": calibrate(rng.random(500), rng.random((500, 10)) < 0.5, 400)})
    assert config.load(PostConfig, config.save(post, tmp_path / "post.yaml")) == post
