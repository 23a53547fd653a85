"""Errors by kind: overlaps worked out by hand, and properties against the metric."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import metric
from kitlib.analysis import errors, oracle
from kitlib.analysis.errors import Error
from kitlib.data import competition
from kitlib.masks import rle
from kitlib.records import Cell, Frame

SIZE = (60, 100)


def only(truth: Frame, predicted: Frame) -> Error:
    (error,) = errors.find([truth], [predicted])
    return error


def test_a_cell_that_nothing_covers_is_missed(frame, cell) -> None:
    error = only(frame(cell(0, 0, 10, 10)), frame())
    assert error == Error("a", "missed", (0,), (), 0.0, 1.0)
    assert only(frame(cell(0, 0, 10, 10)), replace(frame(), id="another")).kind == "missed"


def test_a_prediction_on_nothing_is_background(frame, cell) -> None:
    # 100 pixels, with an IoU of 10 / 190 with the only cell.
    found = errors.find([frame(cell(0, 0, 10, 10))], [frame(cell(9, 0, 10, 10, 0.9))])
    assert [error.kind for error in found] == ["background", "missed"]
    assert found[0].iou == pytest.approx(10 / 190)
    assert found[0].extent == 1.0


def test_an_iou_of_a_tenth_is_background_and_more_is_badly_outlined(frame, cell) -> None:
    whole = cell(0, 0, 100, 10)
    tenth, more = cell(0, 0, 10, 10, 0.9), cell(0, 0, 11, 10, 0.9)
    assert [e.kind for e in errors.find([frame(whole)], [frame(tenth)])] == ["background", "missed"]
    error = only(frame(whole), frame(more))
    assert (error.kind, error.iou, error.extent) == ("badly outlined", 0.11, 0.89)


def test_an_iou_of_a_half_does_not_find_a_cell_and_more_does(frame, cell) -> None:
    assert only(frame(cell(0, 0, 20, 10)), frame(cell(0, 0, 10, 10, 0.9))).kind == "badly outlined"
    error = only(frame(cell(0, 0, 20, 10)), frame(cell(0, 0, 11, 10, 0.9)))
    assert (error.kind, error.iou, error.extent) == ("inexact outline", 0.55, 0.45)


def test_one_prediction_over_two_cells_merges_them(frame, cell) -> None:
    """It finds neither: an IoU of exactly 0.5 with each."""
    truth = frame(cell(0, 0, 10, 10), cell(10, 0, 10, 10))
    error = only(truth, frame(cell(0, 0, 20, 10, 0.9)))
    assert (error.kind, set(error.truth), error.predicted, error.extent) == ("merged", {0, 1}, (0,), 0.0)


def test_a_found_cell_may_have_swallowed_its_neighbour(frame, cell) -> None:
    truth = frame(cell(0, 0, 20, 10), cell(20, 0, 10, 10))
    error = only(truth, frame(cell(0, 0, 30, 10, 0.9)))
    assert (error.kind, error.truth, error.iou) == ("merged", (0, 1), pytest.approx(2 / 3))


def test_a_cell_that_lies_in_a_found_one_is_missed_and_not_merged(frame, cell) -> None:
    truth = frame(cell(0, 0, 30, 10), cell(5, 2, 4, 4))
    found = errors.find([truth], [frame(cell(0, 0, 30, 10, 0.9))])
    assert [(error.kind, error.truth) for error in found] == [("inexact outline", (0,)), ("missed", (1,))]


def test_a_cell_that_another_prediction_finds_is_not_merged(frame, cell) -> None:
    truth = frame(cell(0, 0, 10, 10), cell(10, 0, 10, 10))
    predicted = frame(cell(0, 0, 10, 10, 0.9), cell(1, 0, 19, 10, 0.8))
    kinds = [(error.kind, error.truth) for error in errors.find([truth], [predicted])]
    assert kinds == [("inexact outline", (0,)), ("inexact outline", (1,))]


def test_two_predictions_in_one_cell_split_it(frame, cell) -> None:
    """Neither finds it; and where one of them does, the other is a piece of it all the same."""
    truth = frame(cell(0, 0, 20, 10))
    error = only(truth, frame(cell(0, 0, 10, 10, 0.9), cell(10, 0, 10, 10, 0.8)))
    assert (error.kind, error.truth, set(error.predicted), error.extent) == ("split", (0,), {0, 1}, 0.0)
    error = only(truth, frame(cell(0, 0, 12, 10, 0.9), cell(12, 0, 8, 10, 0.8)))
    assert (error.kind, set(error.predicted)) == ("split", {0, 1})


def test_a_found_cell_that_is_predicted_again_is_a_duplicate(frame, cell) -> None:
    truth = frame(cell(0, 0, 20, 10))
    found = errors.find([truth], [frame(cell(0, 0, 20, 10, 0.9), cell(1, 0, 20, 10, 0.8))])
    assert [(error.kind, error.predicted) for error in found] == [
        ("inexact outline", (0,)),
        ("duplicate", (1,)),
    ]
    assert found[1].iou == pytest.approx(19 / 21)


def test_of_several_bad_outlines_the_best_is_the_cell_s(frame, cell) -> None:
    # IoUs of 0.4 and 0.5 with a cell that they leave by more than half; both overlap.
    truth = frame(cell(0, 0, 10, 10))
    near, far = cell(0, 0, 20, 10, 0.7), cell(0, 0, 25, 10, 0.9)
    found = errors.find([truth], [frame(far, near)])
    assert [(error.kind, error.predicted) for error in found] == [
        ("badly outlined", (1,)),
        ("duplicate", (0,)),
    ]


def test_the_type_of_a_cell_plays_no_part(frame, cell) -> None:
    error = only(frame(cell(0, 0, 10, 10)), frame(cell(0, 0, 10, 10, 0.9, "astro"), category="astro"))
    assert error.kind == "inexact outline"


def test_frames_without_cells(frame) -> None:
    assert errors.find([frame()], [frame()]) == []
    assert errors.find([], []) == []
    assert errors.worst([]) == []


def test_one_pixel_a_hole_and_the_full_frame(frame, cell) -> None:
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    holed = Cell(rle.from_crop(ring, 40, 40, *SIZE), "cort")
    full = Cell(rle.from_mask(np.ones(SIZE)), "cort", 0.5)
    kinds = Counter(e.kind for e in errors.find([frame(cell(99, 59, 1, 1), holed)], [frame(full)]))
    # The full frame covers both cells.
    assert kinds == {"merged": 1}


# ---------------------------------------------------------------------------------------- the oracle


def test_corrections_raise_the_score_by_what_hand_says(frame, cell) -> None:
    """Two true cells: one found exactly, one missed; one prediction on nothing. 1 / 3 at each threshold."""
    truth = [
        frame(cell(0, 0, 10, 10), cell(50, 0, 10, 10)),
        frame(cell(0, 0, 9, 9), name="b", category="astro"),
    ]
    predicted = [
        frame(cell(0, 0, 10, 10, 0.9), cell(80, 40, 10, 10, 0.8)),
        frame(cell(0, 0, 9, 9, 1), name="b"),
    ]
    costs = {cost.kind: cost for cost in oracle.costs(truth, predicted, errors.find(truth, predicted))}
    # 2 / 3 in place of 1 / 3 on one of two images, or 1 / 2.
    assert costs["missed"].gain == pytest.approx((2 / 3 - 1 / 3) / 2)
    assert costs["missed"].by_category == pytest.approx({"astro": 0.0, "cort": 1 / 3})
    assert costs["background"].gain == pytest.approx((1 / 2 - 1 / 3) / 2)
    assert [costs[kind].errors for kind in errors.KINDS] == [1, 0, 0, 0, 0, 1, 2]
    assert costs["missed"].low == 0.0
    assert costs["missed"].high == pytest.approx(1 / 3)


def test_a_bad_outline_costs_the_thresholds_that_it_does_not_reach(frame, cell) -> None:
    """An IoU of 0.72 passes five of ten thresholds."""
    truth, predicted = [frame(cell(0, 0, 25, 10))], [frame(cell(0, 0, 18, 10, 0.9))]
    (cost,) = [c for c in oracle.costs(truth, predicted, errors.find(truth, predicted)) if c.errors]
    assert (cost.kind, cost.gain) == ("inexact outline", pytest.approx(0.5))


boxes = st.tuples(st.integers(0, 90), st.integers(0, 50), st.integers(1, 40), st.integers(1, 40))


def of(rectangles: list, score: float | None) -> Frame:
    masks = [rle.from_crop(np.ones((h, w)), x, y, *SIZE) for x, y, w, h in rectangles]
    return Frame("a", None, *SIZE, tuple(Cell(mask, "cort", score) for mask in masks), "cort")


@given(st.lists(boxes, max_size=8), st.lists(boxes, max_size=8))
def test_each_cell_is_in_one_error_and_all_corrections_make_the_score_one(true: list, found: list) -> None:
    truth, predicted = of(true, None), of(found, 0.5)
    every = errors.find([truth], [predicted])
    assert sorted(i for error in every for i in error.truth) == list(range(len(true)))
    assert sorted(i for error in every for i in error.predicted) == list(range(len(found)))
    fixed = oracle.corrected([truth], [predicted], every)
    assert metric.score([truth], fixed).mean == 1.0
    for error in every:
        assert (len(error.truth), len(error.predicted)) == (
            {"merged": (max(len(error.truth), 2), 1), "split": (1, max(len(error.predicted), 2))}
            | {"missed": (1, 0), "duplicate": (0, 1), "background": (0, 1)}
            | {"badly outlined": (1, 1), "inexact outline": (1, 1)}
        )[error.kind]


@given(st.lists(boxes, max_size=8), st.lists(boxes, max_size=8))
def test_as_many_cells_are_found_as_the_metric_matches(true: list, found: list) -> None:
    truth, predicted = of(true, None), of(found, 0.5)
    pairs = errors.match(rle.iou(*([cell.mask for cell in side.cells] for side in (truth, predicted))))
    assert len(pairs) == metric.score([truth], [predicted]).counts[0].tp
    assert len(set(pairs.values())) == len(pairs)


@given(st.lists(boxes, min_size=1, max_size=8), st.randoms())
def test_a_perfect_prediction_has_no_error_whatever_its_order(true: list, random) -> None:
    truth = of(true, None)
    shuffled = list(truth.cells)
    random.shuffle(shuffled)
    found = errors.find([truth], [replace(truth, cells=tuple(shuffled))])
    assert {error.kind for error in found} == {"inexact outline"}
    assert {error.extent for error in found} == {0.0}


# ---------------------------------------------------------------------------------------- in numbers


def test_counts_by_type_and_size_add_up_to_the_true_cells(frame, cell) -> None:
    """Areas 10, 20, ..., 90 make thirds up to 36 and 63."""
    cells = [cell(0, 6 * row, width, 5) for row, width in enumerate(range(2, 20, 2))]
    truth = frame(*cells)
    predicted = frame(*(replace(c, score=0.9) for c in cells[:4]), cell(60, 0, 2, 5, 0.8))
    table = errors.counts([truth], [predicted], errors.find([truth], [predicted]))
    assert table["size"].tolist() == ["small", "medium", "large"]
    assert table["up to"].tolist()[:2] == [36, 63]
    assert table["true cells"].tolist() == [3, 3, 3]
    assert table["found"].tolist() == [3, 1, 0]
    assert table["missed"].tolist() == [0, 2, 3]
    # The prediction on nothing has 10 pixels.
    assert table["background"].tolist() == [1, 0, 0]
    assert errors.counts([frame()], [], [])["true cells"].tolist() == [0, 0, 0]


def test_the_worst_are_the_largest_of_each_kind(frame, cell) -> None:
    truth = frame(cell(0, 0, 10, 10), cell(20, 0, 20, 10), cell(50, 0, 30, 10))
    found = errors.find([truth], [frame(cell(0, 40, 10, 10, 0.9))])
    assert [(error.kind, error.truth) for error in errors.worst(found, 2)] == [
        ("missed", (2,)),
        ("missed", (1,)),
        ("background", ()),
    ]


def test_real_cells_moved_by_a_pixel_are_found_and_merged_ones_are_merged(real_competition) -> None:
    frames = competition.labelled(real_competition)[:4]
    for truth in frames:
        every = errors.find([truth], [truth])
        assert Counter(error.kind for error in every) == {"inexact outline": len(truth.cells)}
        one, other = most_distant(truth)
        both = Cell(rle.merge([truth.cells[one].mask, truth.cells[other].mask]), "cort", 0.9)
        left = tuple(c for i, c in enumerate(truth.cells) if i not in (one, other))
        merged = [
            e for e in errors.find([truth], [replace(truth, cells=(*left, both))]) if e.kind == "merged"
        ]
        assert [set(error.truth) for error in merged] == [{one, other}]


def most_distant(frame: Frame) -> tuple[int, int]:
    """Two cells of similar area that lie in no other cell."""
    masks = [cell.mask for cell in frame.cells]
    alone = np.flatnonzero((rle.iou(masks, masks) > 0).sum(axis=0) == 1)
    order = alone[np.argsort(rle.areas([masks[i] for i in alone]))]
    middle = len(order) // 2
    return int(order[middle]), int(order[middle + 1])
