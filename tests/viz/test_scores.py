"""Figures of scores: the numbers that they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kitlib import metric, viz
from kitlib.analysis import growth
from kitlib.analysis.instances import Bin
from kitlib.masks import rle
from kitlib.post.config import PostConfig
from kitlib.post.tuning import search
from kitlib.post.tuning.cross_validation import Row, cross_validate
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
    assert [text.get_text() for text in axes.texts] == ["0.000", "0.000", "0.500", "1.000", "0.750"]


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
    """Wrong bars score .3 or .1, right ones .8: all thresholds between are best; the middle one is taken."""
    truth = [frame(f"{c}{n}", c, 0, 50) for c in ("cort", "own") for n in range(4)]
    wrong = {"cort": 0.3, "own": 0.1}
    found = [frame(f.id, f.category, 0, 50, 20, scores=(0.8, 0.8, wrong[f.category])) for f in truth]
    tuning = search.tune(truth, found, PostConfig(min_area={"default": 0}))
    (axes,) = drawn(viz.tuning(tuning)).axes
    assert [line.get_label() for line in axes.lines[::2]] == ["cort, 4 images", "own, 4 images"]
    for curve, mark, name in zip(axes.lines[0::2], axes.lines[1::2], ("cort", "own"), strict=True):
        best = tuning.config.for_category(name).score_threshold
        assert mark.get_xdata() == [best]
        assert mark.get_ydata()[0] == pytest.approx(np.interp(best, curve.get_xdata(), curve.get_ydata()))
        assert mark.get_ydata()[0] == pytest.approx(1)


def test_what_the_chosen_method_does_not_use_is_not_marked(drawn) -> None:
    """One image of cort is taken for astro: curves count by the true type."""
    truth = [frame(f"cort{n}", "cort", 0, 50) for n in range(4)]
    found = [frame(f.id, "cort", 0, 50, 20, scores=(0.8, 0.8, 0.3)) for f in truth]
    found[0] = replace(found[0], category="astro")
    for method, marks in (("one threshold for all types", 1), ("expected gain", 0)):
        tuning = cross_validate(truth, found, folds=2, kinds=["box"], methods=[method]).tuning
        (axes,) = drawn(viz.tuning(tuning)).axes
        assert [line.get_label() for line in axes.lines if len(line.get_xdata()) > 2] == ["cort, 4 images"]
        assert len(axes.lines) == 1 + marks
        assert len(axes.texts) == marks
        title = axes.get_title(loc="left")
        assert "on the images that were tuned on, by true type" in title
        assert ("uses no threshold" in title) == (marks == 0)
        if marks:
            assert axes.lines[1].get_xdata()[0] == tuning.config.score_threshold["default"]


def test_intervals_are_those_of_the_mean_over_the_images_of_a_type(drawn) -> None:
    truth = [frame("a", "cort", 0, 50), frame("b", "cort", 20), frame("c", "astro", 20)]
    score = metric.score(truth, [frame("a", "cort", 0), frame("b", "cort", 20), frame("c", "astro", 20)])
    (axes,) = drawn(viz.by_category({"now": score}, truth)).axes
    # Two images of cort, one of astro, three of all.
    whiskers = [tuple(line.get_ydata()) for line in axes.lines]
    assert whiskers == [metric.interval([0.5, 1.0]), metric.interval([0.5, 1.0, 1.0])]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["astro\n1 image", "cort\n2 images", "all"]


def test_the_leaderboard_shows_lines_scores_and_the_interval(drawn) -> None:
    (axes,) = drawn(viz.leaderboard(0.25, 0.2, 0.31)).axes
    assert [bar.get_width() for bar in axes.patches] == [0.326, 0.338, 0.25]
    assert [text.get_text() for text in axes.texts] == ["0.326", "0.338", "0.250"]
    medals = [text.get_text() for text in axes.get_legend().get_texts()]
    assert medals == ["gold, 0.347", "silver, 0.330", "bronze, 0.319"]
    (segments,) = [c.get_segments() for c in axes.collections]
    assert np.ravel(segments) == pytest.approx([0.2, 2, 0.31, 2])
    assert "do not compare" in viz.leaderboard(0.5, 0.4, 0.6, competition=False).axes[0].get_xlabel()


def test_reliability_shows_shares_counts_and_intervals(drawn) -> None:
    bins = [Bin(0.25, 20, 0.1, 0.05, 0.2), Bin(0.75, 1200, 0.8, 0.7, 0.9)]
    upper, lower = drawn(viz.reliability(bins)).axes
    assert upper.lines[1].get_xydata().tolist() == [[0.25, 0.1], [0.75, 0.8]]
    assert [s[:, 1].tolist() for s in upper.collections[0].get_segments()] == [[0.05, 0.2], [0.7, 0.9]]
    assert [text.get_text() for text in lower.texts] == ["20", "1,200"]
    # (20 * .15 + 1200 * .05) / 1220
    assert upper.get_title(loc="left").endswith("mean distance 0.05")
    drawn(viz.reliability([]))


def test_growth_shows_points_the_curve_and_the_sentence(drawn) -> None:
    points = [growth.Point(n, 0.3 - 0.4 / n, 0.28 - 0.4 / n, 0.32 - 0.4 / n) for n in (5, 10, 20, 40)]
    found = growth.fit(points)
    (axes,) = drawn(viz.growth(found)).axes
    assert axes.lines[0].get_xdata().tolist()[0] == 5
    assert axes.lines[1].get_xdata().tolist()[-1] == 80
    assert axes.lines[2].get_xydata().tolist() == [[p.images, p.score] for p in points]
    assert " ".join(axes.get_xlabel().split()).endswith(found.sentence)
    (axes,) = drawn(viz.growth(growth.fit(points[:1]))).axes
    assert len(axes.lines) == 1
    assert "Three or more" in axes.get_xlabel()


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
