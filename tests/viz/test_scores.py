"""Figures of scores: the numbers that they show."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib import metric, viz
from kitlib.masks import rle
from kitlib.post.config import PostConfig
from kitlib.post.tuning import search
from kitlib.post.tuning.cross_validation import Row
from kitlib.records import Cell, Frame


def frame(name: str, category: str, *starts: int, scores: tuple[float, ...] = ()) -> Frame:
    """A frame of one row with a bar of ten pixels at each start."""
    masks = [rle.from_runs(np.array([s]), np.array([10]), 1, 100) for s in starts]
    each = scores or [None] * len(masks)
    cells = tuple(Cell(m, category, s) for m, s in zip(masks, each, strict=True))
    return Frame(name, None, 1, 100, cells, category)


TRUTH = [frame("a", "cort", 0, 50), frame("b", "astro", 20)]
BEFORE = metric.score(TRUTH, [frame("a", "cort", 0), frame("b", "astro", 70)])  # .5 and 0
AFTER = metric.score(TRUTH, [frame("a", "cort", 0, 50), frame("b", "astro", 20, 70)])  # 1 and .5


def test_bars_stand_side_by_side_for_each_type_and_all(drawn) -> None:
    (axes,) = drawn(viz.by_category({"before": BEFORE, "after": AFTER})).axes
    assert [bar.get_height() for bar in axes.patches] == [0, 0.5, 0.25, 0.5, 1, 0.75]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["astro", "cort", "all"]
    for before, after in zip(axes.patches[:3], axes.patches[3:], strict=True):
        assert before.get_x() + before.get_width() < after.get_x()
        assert sum(before.get_facecolor()) > sum(after.get_facecolor())  # the last is the strongest


def test_a_type_that_one_score_lacks(drawn) -> None:
    only = metric.score(TRUTH[:1], [])
    (axes,) = drawn(viz.by_category({"before": only, "after": AFTER})).axes
    assert np.isnan(axes.patches[0].get_height())
    assert axes.texts[0].get_text() == ""


def test_a_line_for_each_score_by_threshold(drawn) -> None:
    (axes,) = drawn(viz.by_threshold({"before": BEFORE, "after": AFTER})).axes
    assert [line.get_label() for line in axes.lines] == ["before 0.250", "after 0.750"]
    assert axes.lines[1].get_xdata() == pytest.approx(metric.THRESHOLDS)
    assert axes.lines[1].get_ydata() == pytest.approx([0.75] * 10)


@pytest.mark.parametrize("number", [0, 1, 14])
def test_any_number_of_scores(drawn, number: int) -> None:
    scores = {f"fold {n}": AFTER for n in range(number)}
    assert len(drawn(viz.by_threshold(scores)).axes[0].lines) == number
    assert len(drawn(viz.by_category(scores)).axes[0].patches) == 3 * number


def test_the_chosen_threshold_lies_on_its_curve(drawn) -> None:
    """Wrong bars score .3, right ones .8: every threshold between is best, and the middle one is taken."""
    truth = [frame(f"{c}{n}", c, 0, 50) for c in ("cort", "own") for n in range(4)]
    found = [frame(f.id, f.category, 0, 50, 20, scores=(0.8, 0.8, 0.3)) for f in truth]
    tuning = search.tune(truth, found, PostConfig(min_area={"default": 0}))
    (axes,) = drawn(viz.tuning(tuning)).axes
    assert [line.get_label() for line in axes.lines[::2]] == ["cort, 4 images", "own, 4 images"]
    for curve, mark, name in zip(axes.lines[0::2], axes.lines[1::2], ("cort", "own"), strict=True):
        best = tuning.config.for_category(name).score_threshold
        assert mark.get_xdata() == [best]
        assert mark.get_ydata()[0] == pytest.approx(np.interp(best, curve.get_xdata(), curve.get_ydata()))
        assert mark.get_ydata()[0] == pytest.approx(1)


def test_a_line_for_each_way_and_the_best_in_bold(drawn) -> None:
    rows = [
        Row("untuned", 0.2, 0.15, 0.25, {"astro": 0.1, "cort": 0.3}),
        Row("thresholds by type", 0.3, 0.2, 0.4, {"astro": 0.2, "cort": 0.4}),
    ]
    (axes,) = drawn(viz.tuning_methods(rows)).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["untuned", "thresholds by type"]
    assert [(t.get_text(), t.get_weight()) for t in axes.texts] == [("0.200", "normal"), ("0.300", "bold")]
    intervals = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert intervals == [(0.15, 0.25), (0.2, 0.4)]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["astro", "cort"]
