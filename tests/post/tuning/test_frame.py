"""A scorer's score under any post-processing is that of the frame post-processed and scored afresh."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import metric
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import CategoryConfig, PostConfig, tables
from kitlib.post.tuning.frame import FrameScorer
from kitlib.post.tuning.masks import FrameMasks
from kitlib.records import Cell, Frame

SIZE = 60, 80


def ragged(rng, x, y, side, score=None):
    """A square with holes, its corner moved."""
    mask = rng.random((side, side)) < 0.9
    return Cell(rle.from_crop(mask, int(x), int(y), *SIZE), "cort", score)


def frames(seed):
    """Overlapping truth and, at two mask thresholds, predictions around it."""
    rng = np.random.default_rng(seed)
    true, found = [], {0.5: [], 0.4: []}
    for _ in range(8):
        x, y, side = rng.integers(0, 70), rng.integers(0, 50), rng.integers(5, 16)
        true.append(ragged(rng, x, y, side))
        for _ in range(3):
            shift, score = rng.integers(0, 5), float(rng.choice([0.2, 0.4, 0.6, 0.8]))
            for grow, level in enumerate(found):
                found[level].append(ragged(rng, x + shift, y, side + grow, score))
    truth = Frame("a", None, *SIZE, tuple(true), "cort")
    return truth, {level: replace(truth, cells=tuple(cells)) for level, cells in found.items()}


configs = st.builds(
    CategoryConfig,
    score_threshold=st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.9]),
    min_area=st.sampled_from([0, 30, 80, 500]),
    max_area=st.sampled_from([None, 120]),
    mask_nms=st.sampled_from([1.0, 0.3, 0.05]),
    max_clipped=st.sampled_from([0.2, 0.5]),
    split=st.sampled_from(["keep_largest", "keep_all", "drop"]),
    fill_holes=st.booleans(),
    largest_only=st.booleans(),
    mask_threshold=st.sampled_from([0.4, 0.5]),
)


@given(st.integers(0, 20), st.lists(configs, min_size=1, max_size=4), st.booleans())
def test_scores_as_post_processed(seed, several, keep_best):
    truth, found = frames(seed)
    scorer = FrameScorer(FrameMasks(truth, found), PostConfig(keep_best=keep_best))
    # One after another, so that what is remembered serves the right ones only.
    for each in several:
        config = PostConfig(**tables({"default": each}), keep_best=keep_best)
        final = thresholds.apply(found[each.mask_threshold], config)
        expected = metric.score([truth], [final]).mean
        assert scorer.curve(each).at(each.score_threshold) == pytest.approx(expected, abs=1e-12)


def test_value_and_best_iou_of_each_rank():
    """A hit, a miss, and a cell moved by two of ten columns (IoU 80 / 120: 4 thresholds of 10)."""
    solid = [rle.from_crop(np.ones((10, 10), bool), x, 0, *SIZE) for x in (0, 20, 40, 42)]
    truth = Frame("a", None, *SIZE, tuple(Cell(m, "cort") for m in solid[:1] + solid[2:3]))
    scored = zip((solid[0], solid[1], solid[3]), (0.9, 0.8, 0.3), strict=True)
    found = replace(truth, cells=tuple(Cell(m, "cort", s) for m, s in scored))
    curve = FrameScorer(FrameMasks(truth, {0.5: found}), PostConfig()).curve(CategoryConfig())
    assert curve.scores.tolist() == [0.9, 0.8, 0.3]
    assert curve.best_iou == pytest.approx([1, 0, 2 / 3])
    assert curve.value == pytest.approx([1 / 2, 1 / 2, 1 / 3, 0.4 * 2 / 3 + 0.6 * 1 / 4])
    assert curve.at([0.0, 0.5, 0.95]) == pytest.approx(curve.value[[3, 2, 0]])


def test_a_frame_in_which_nothing_was_found():
    truth, found = frames(0)
    nothing = replace(found[0.5], cells=(), category=None)
    scorer = FrameScorer(FrameMasks(truth, {0.5: nothing}), PostConfig())
    assert scorer.category is None
    assert scorer.curve(CategoryConfig()).at(0.5) == 0
    bare = replace(truth, cells=())
    assert FrameScorer(FrameMasks(bare, {0.5: bare}), PostConfig()).curve(CategoryConfig()).at(0.5) == 1
