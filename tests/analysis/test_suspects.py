"""Likely annotation errors: each reason by geometry worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kitlib.analysis import suspects
from kitlib.analysis.suspects import Suspect
from kitlib.data import competition
from kitlib.masks import rle
from kitlib.records import Cell

SIZE = (60, 100)


def test_a_confident_prediction_without_a_cell(frame, cell) -> None:
    """A tenth of it lies in a true cell."""
    truth = frame(cell(0, 0, 40, 10))
    found = suspects.find([truth], [frame(cell(0, 0, 40, 10, 0.9), cell(39, 0, 10, 10, 0.8))])
    assert found == [Suspect("a", None, 1, "not annotated", pytest.approx(0.8 * 0.9))]


def test_a_cell_that_no_model_finds_where_models_find_the_others(frame, cell) -> None:
    cells = [cell(20 * n, 0, 10, 10) for n in range(4)]
    truth = frame(*cells)
    predicted = frame(*(replace(c, score=0.3) for c in cells[:3]))
    assert suspects.find([truth], [predicted]) == [Suspect("a", 3, None, "found by no model", 0.75)]
    # A model that finds a quarter of the cells says little about the others.
    weak = suspects.find([truth], [frame(replace(cells[0], score=0.9))])
    assert [(s.cell, s.score) for s in weak] == [(1, 0.25), (2, 0.25), (3, 0.25)]


def test_types_are_judged_apart(frame, cell) -> None:
    easy = [cell(20 * n, 0, 10, 10) for n in range(4)]
    truth = [frame(*easy), frame(*easy, name="b", category="astro")]
    predicted = [
        frame(*(replace(c, score=0.3) for c in easy[:3])),
        frame(replace(easy[0], score=0.3), name="b"),
    ]
    found = suspects.find(truth, predicted)
    assert [(s.frame_id, s.score) for s in found] == [("a", 0.75), ("b", 0.25), ("b", 0.25), ("b", 0.25)]


def test_an_outline_that_differs_more_than_usual(frame, cell) -> None:
    """Usual is an IoU of 1; one cell has 0.5."""
    cells = [cell(20 * n, 0, 10, 10) for n in range(4)]
    predicted = [replace(c, score=0.9) for c in cells[:3]] + [cell(60, 0, 5, 10, 0.8)]
    (found,) = suspects.find([frame(*cells)], [frame(*predicted)])
    assert found == Suspect("a", 3, 3, "outline differs", pytest.approx(0.8 * 0.5))


def test_parts_holes_and_overlaps_are_seen_without_a_model(frame, cell) -> None:
    ring, parts = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    ring[4:6, 4:9] = False
    parts[:, :6] = parts[:, 8:] = True
    holed = Cell(rle.from_crop(ring, 0, 0, *SIZE), "cort")
    broken = Cell(rle.from_crop(parts, 20, 0, *SIZE), "cort")
    pair = cell(50, 0, 20, 10), cell(66, 0, 10, 10)
    found = suspects.find([frame(holed, broken, *pair)], [])
    assert found == [
        Suspect("a", 3, None, "overlaps another cell", pytest.approx(0.4)),
        Suspect("a", 1, None, "in several parts", pytest.approx(20 / 80)),
        Suspect("a", 0, None, "with holes", pytest.approx(10 / 100)),
    ]


def test_a_pixel_s_hole_is_not_worth_a_look(frame) -> None:
    ring = np.ones((10, 10), bool)
    ring[5, 5] = False
    assert suspects.find([frame(Cell(rle.from_crop(ring, 0, 0, *SIZE), "cort"))], []) == []


def test_frames_without_cells_or_predictions(frame, cell) -> None:
    assert suspects.find([], []) == []
    assert suspects.find([frame()], [frame()]) == []
    (found,) = suspects.find([frame()], [frame(cell(0, 0, 9, 9, 0.6))])
    assert found == Suspect("a", None, 0, "not annotated", 0.6)
    # Of a frame that was not predicted, nothing is said about what was found.
    assert suspects.find([frame(cell(0, 0, 9, 9))], []) == []


def test_annotations_of_real_cells_that_are_removed_or_swapped_come_first(real_competition) -> None:
    """With the true cells as predictions, what was spoilt is what is found."""
    truth = competition.labelled(real_competition)[1]
    predicted = replace(truth, cells=tuple(replace(cell, score=0.9) for cell in truth.cells))
    alone = lonely(truth)
    spoilt = replace(truth, cells=tuple(cell for i, cell in enumerate(truth.cells) if i != alone))
    first = suspects.find([spoilt], [predicted])[0]
    assert (first.reason, first.predicted, first.score) == ("not annotated", alone, pytest.approx(0.9))


def lonely(frame) -> int:
    """A cell that touches no other."""
    masks = [cell.mask for cell in frame.cells]
    return int(np.flatnonzero((rle.iou(masks, masks) > 0).sum(axis=0) == 1)[0])
