"""Frames compared in all, by type and by image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.metric.comparison import compare
from kitlib.metric.competition import score
from kitlib.records import Cell, Frame


def frame(name: str, *cells: tuple[int, int, str], scored: bool = False) -> Frame:
    """Bars in a frame of one row: start, length and type; the first has the highest score."""
    found = [
        Cell(
            rle.from_runs(np.array([start]), np.array([length]), 1, 400),
            kind,
            0.9 - n / 100 if scored else None,
        )
        for n, (start, length, kind) in enumerate(cells)
    ]
    return Frame(name, None, 1, 400, tuple(found), cells[0][2] if cells else None)


TRUTH = [frame("a", (0, 10, "cort"), (20, 10, "cort")), frame("b", (0, 10, "astro")), frame("c")]


def test_images_of_one_type_each_are_compared_whatever_the_predicted_type() -> None:
    """A cort cell that is predicted as astro is a match, as in the competition."""
    found = [frame("a", (0, 10, "astro"), (20, 10, "cort")), frame("b", (50, 10, "astro")), frame("c")]
    result = compare(TRUTH, found)
    assert {name: quality.map for name, quality in result.by_type.items()} == {"astro": 0.0, "cort": 1.0}
    assert result.by_type["cort"].rates[0][:4] == (0.5, 2, 0, 0)
    assert [(name, quality.map) for name, quality in result.by_image.items()] == [
        ("a", 1),
        ("b", 0),
        ("c", 1),
    ]
    assert result.all.map == score(TRUTH, found).mean == pytest.approx(2 / 3)
    assert result.all.images == 3


MIXED = [frame("a", (0, 10, "round"), (20, 10, "long"), (40, 10, "long")), frame("b", (0, 10, "round"))]


def test_mixed_cells_are_compared_type_by_type() -> None:
    found = [frame("a", (0, 10, "long"), (20, 10, "long")), frame("b", (0, 10, "round"))]
    result = compare(MIXED, found)
    assert result.by_type["long"].rates[0][1:4] == (1, 1, 1)
    assert result.by_type["round"].rates[0][1:4] == (1, 0, 1)
    assert (result.by_type["long"].images, result.by_type["round"].images) == (1, 2)
    assert result.all.rates[0][1:4] == (3, 0, 1)


def test_mixed_cells_that_are_predicted_without_types_are_compared_in_all_alone() -> None:
    result = compare(MIXED, [frame("a", (0, 10, "cell"), (20, 10, "cell"))])
    assert result.by_type == {}
    assert result.all.rates[0][1:4] == (2, 0, 2)


def test_a_single_type_needs_no_column_of_its_own() -> None:
    assert compare(TRUTH[:1], TRUTH[:1]).by_type == {}


def test_images_without_predictions_are_missed_or_left_out() -> None:
    found = [frame("c"), TRUTH[0]]
    every = compare(TRUTH, found)
    assert (every.unpredicted, every.all.images, every.all.map) == (("b",), 3, pytest.approx(2 / 3))
    some = compare(TRUTH, found, predicted_only=True)
    assert (some.unpredicted, some.all.images, some.all.map) == (("b",), 2, 1.0)
    assert list(some.by_image) == ["a", "c"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(KitError, match="predictions for 1 images without truth, the first is 'd'"):
        compare(TRUTH, [frame("d")])
    with pytest.raises(KitError, match="'a' are of a frame 400 wide, 2 high"):
        compare(TRUTH, [replace(TRUTH[0], height=2)])
    with pytest.raises(KitError, match="no true image has predictions"):
        compare(TRUTH, [], predicted_only=True)
    with pytest.raises(KitError, match="there is no true image to score against"):
        compare([], [])


def test_average_precision_needs_scores() -> None:
    assert compare(TRUTH, TRUTH).all.coco_ap is None
    found = [
        frame("a", (0, 10, "cort"), (20, 10, "cort"), scored=True),
        frame("b", (0, 10, "astro"), scored=True),
    ]
    result = compare(TRUTH, found)
    assert (result.all.coco_ap, result.by_type["cort"].coco_ap) == (1.0, 1.0)


def test_average_precision_in_all_is_the_mean_over_the_types() -> None:
    """Both cort cells are found, the astro cell is called cort: 1 for cort but for the rank, 0 for astro."""
    found = [
        frame("a", (0, 10, "cort"), (20, 10, "cort"), scored=True),
        frame("b", (0, 10, "cort"), scored=True),
    ]
    result = compare(TRUTH, found)
    assert result.by_type["astro"].coco_ap == 0.0
    assert result.all.coco_ap == pytest.approx(result.by_type["cort"].coco_ap / 2)
    assert result.by_type["astro"].map == 1.0


def test_the_share_of_area_in_several_cells() -> None:
    """15 pixels are covered, 5 of them twice."""
    result = compare(TRUTH[:1], [frame("a", (0, 10, "cort"), (5, 10, "cort"), scored=True)])
    assert result.scored
    assert result.overlap == pytest.approx(5 / 20)
    assert compare(TRUTH, TRUTH).overlap == 0.0
