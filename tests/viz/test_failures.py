"""Figures of errors, likely annotation errors and post-processing: the numbers and cells that they show."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from kitlib import metric, viz
from kitlib.analysis import errors, oracle, steps, suspects
from kitlib.masks import rle
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame
from kitlib.viz import style

SIZE = (300, 400)


def square(x: int, y: int, side: int = 20, score: float | None = None) -> Cell:
    return Cell(rle.from_crop(np.ones((side, side)), x, y, *SIZE), "cort", score)


def frame(name: str, *cells: Cell, category: str = "cort") -> Frame:
    return Frame(name, None, *SIZE, cells, category)


# A found cell, a missed one, a prediction on background.
TRUTH = [frame("a", square(0, 0), square(100, 0)), frame("b", square(50, 50), category="astro")]
FOUND = [
    frame("a", square(0, 0, score=0.9), square(200, 200, score=0.7)),
    frame("b", square(50, 50, score=0.8)),
]
ERRORS = errors.find(TRUTH, FOUND)


def names(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_costs_are_bars_with_counts_intervals_and_types(drawn) -> None:
    costs = oracle.costs(TRUTH, FOUND, ERRORS)
    (axes,) = drawn(viz.error_costs(costs, metric.score(TRUTH, FOUND).mean)).axes
    assert "score of 0.667" in axes.get_title(loc="left")
    assert names(axes)[0] == "missed  (1)"
    assert names(axes)[-1] == "inexact outline  (2)"
    gains = dict(zip(errors.KINDS, [bar.get_width() for bar in axes.patches], strict=True))
    # Image a: 1 / 3 becomes 2 / 3 with the missed cell found, 1 / 2 without the false one; b is perfect.
    assert gains["missed"] == pytest.approx(1 / 6)
    assert gains["background"] == pytest.approx(1 / 12)
    assert gains["inexact outline"] == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["astro", "cort"]


def test_fates_of_cells_add_up_to_all(drawn) -> None:
    table = errors.counts(TRUTH, FOUND, ERRORS)
    (axes,) = drawn(viz.cell_fates(table)).axes
    rows = len(names(axes))
    assert rows == (table["true cells"] > 0).sum()
    widths = np.array([bar.get_width() for bar in axes.patches]).reshape(5, rows)
    assert widths.sum(axis=0) == pytest.approx(np.ones(rows))


def test_steps_show_scores_and_what_was_removed(drawn) -> None:
    removals = steps.follow(TRUTH, FOUND, PostConfig(score_threshold={"default": 0.75}))
    left, right = drawn(viz.post_steps(removals)).axes
    assert names(left) == [removal.name for removal in removals]
    assert left.texts[0].get_text() == "0.667"
    assert left.texts[3].get_text() == "0.750 (+0.083)"
    assert right.texts[0].get_text() == "3 instances"
    assert right.texts[3].get_text() == "1 removed, 0 had found a cell"


def test_a_crop_shows_the_error_and_its_surroundings(drawn) -> None:
    missed = next(error for error in ERRORS if error.kind == "missed")
    wrong = next(error for error in ERRORS if error.kind == "background")
    figure = drawn(viz.worst_errors(TRUTH, FOUND, [missed, wrong]))
    first, second = figure.axes[:2]
    assert first.get_title(loc="left") == "missed  cort a\nnothing predicted here"
    assert second.get_title(loc="left") == "background  cort a\nscore 0.70"
    assert first.get_xlim()[0] <= 100 < 120 <= first.get_xlim()[1]
    assert strong(first) == {style.MISSED}
    assert strong(second) == {style.WRONG}
    assert not any(panel.axison for panel in figure.axes[2:])


def strong(axes) -> set[str]:
    """The colours of the cells in question."""
    return {
        to_hex(color).upper()
        for lines in axes.collections
        for color in lines.get_colors()
        if lines.get_linewidth()[0] > 1 and lines.get_segments()
    }


def test_an_outline_lies_on_its_pixels(drawn) -> None:
    missed = next(error for error in ERRORS if error.kind == "missed")
    axes = drawn(viz.worst_errors(TRUTH, FOUND, [missed])).axes[0]
    (line,) = [s for c in axes.collections for s in c.get_segments() if c.get_linewidth()[0] > 1]
    # The centres of the outermost pixels, where pixel n reaches from n to n + 1.
    assert [line.min(axis=0).tolist(), line.max(axis=0).tolist()] == [[100.5, 0.5], [119.5, 19.5]]
    x0, x1, y1, y0 = axes.images[0].get_extent()
    assert axes.images[0].get_array().shape == (y1 - y0, x1 - x0)


def test_suspects_show_the_annotation_or_the_prediction(drawn) -> None:
    found = suspects.find(TRUTH, FOUND)
    reasons = [each.reason for each in found]
    assert reasons == ["not annotated", "found by no model"]
    figure = drawn(viz.suspect_cells(TRUTH, FOUND, found))
    assert figure.axes[0].get_title(loc="left") == "not annotated  0.70\ncort a  no cell"
    assert strong(figure.axes[0]) == {style.WRONG}
    assert figure.axes[1].get_title(loc="left") == "found by no model  0.50\ncort a  cell 1"
    assert strong(figure.axes[1]) == {style.MISSED}


def test_nothing_to_show(drawn) -> None:
    for figure in (viz.worst_errors(TRUTH, FOUND, []), viz.suspect_cells(TRUTH, FOUND, [])):
        assert not any(axes.axison for axes in drawn(figure).axes)


def test_eight_hundred_cells_and_a_cell_as_large_as_the_frame(drawn) -> None:
    crowd = [square(x, y, 6) for x in range(0, 400, 10) for y in range(0, 200, 10)]
    whole = Cell(rle.from_crop(np.ones(SIZE), 0, 0, *SIZE), "cort")
    truth = [frame("a", *crowd, whole)]
    found = errors.find(truth, [])
    assert len(found) == 801
    figure = drawn(viz.worst_errors(truth, [], errors.worst(found, 5)))
    # The largest first, shown whole.
    assert figure.axes[0].get_xlim() == (0, 400)
    drawn(viz.cell_fates(errors.counts(truth, [], found)))
