"""Post-processing step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kitlib import metric
from kitlib.analysis import steps
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame


def test_each_removed_instance_has_its_step_and_reason(frame, cell) -> None:
    truth = frame(cell(0, 0, 10, 10), cell(30, 0, 10, 10))
    predicted = frame(
        cell(0, 0, 10, 10, 0.9),  # stays
        cell(0, 0, 2, 2, 0.9),  # too small
        cell(30, 0, 10, 10, 0.2),  # below the threshold, though it has found a cell
        cell(1, 0, 10, 10, 0.8),  # IoU of 9 / 11 with the first
        cell(6, 0, 10, 10, 0.7),  # 40 of 100 pixels are the first's
        cell(60, 30, 10, 10, 0.6),  # stays, on nothing
    )
    config = PostConfig(min_area={"default": 20}, mask_nms={"default": 0.3}, max_clipped={"default": 0.3})
    found = steps.follow([truth], [predicted], config)
    assert steps.removed_by(found) == {
        "a": {1: "area", 2: "score threshold", 3: "mask NMS", 4: "overlap"},
    }
    assert [removal.cells for removal in found] == [6, 6, 5, 4, 3, 2, 2, 2, 2]
    assert {removal.name: removal.found for removal in found if removal.found} == {"score threshold": 1}
    # 2 of 6, 5 found; then 1 of 5, 4 and 3 cells in all, each exact.
    expected = [2 / 6, 2 / 6, 2 / 5, 1 / 5, 1 / 4, 1 / 3, 1 / 3, 1 / 3, 1 / 3]
    assert [removal.score for removal in found] == pytest.approx(expected)


def test_the_table_has_a_row_for_each_step(frame, cell) -> None:
    truth, predicted = frame(cell(0, 0, 10, 10)), frame(cell(0, 0, 10, 10, 0.9), cell(50, 0, 10, 10, 0.1))
    table = steps.table(steps.follow([truth], [predicted], PostConfig()))
    assert table.index.tolist() == list(thresholds.STEPS)
    assert table.loc["score threshold"].tolist() == [1, 1, 0, 1.0, 0.5]
    assert table["gain"].sum() == pytest.approx(table["score"].iloc[-1] - table["score"].iloc[0])


def test_the_best_cell_comes_back(frame, cell) -> None:
    truth, predicted = frame(cell(0, 0, 10, 10)), frame(cell(0, 0, 10, 10, 0.1), cell(50, 0, 10, 10, 0.05))
    found = steps.follow([truth], [predicted], PostConfig())
    assert [removal.score for removal in found[-2:]] == [0.0, 1.0]
    assert found[-1].cells == 1


def random_frames(seed: int) -> tuple[list[Frame], list[Frame]]:
    rng, size = np.random.default_rng(seed), (60, 100)
    truth, predictions = [], []
    for n in range(3):
        cells = []
        for _ in range(12):
            (x, y), (width, height) = rng.integers(0, 50, 2), rng.integers(3, 20, 2)
            cells.append(Cell(rle.from_crop(np.ones((height, width)), int(x), int(y), *size), "cort"))
        found = [replace(c, score=float(s)) for c, s in zip(cells, rng.random(12), strict=True)]
        truth.append(Frame(str(n), None, *size, tuple(cells[:8]), "cort"))
        predictions.append(Frame(str(n), None, *size, tuple(found), "cort"))
    return truth, predictions


@pytest.mark.parametrize("seed", range(5))
def test_the_last_step_is_what_post_processing_gives(seed: int) -> None:
    truth, predictions = random_frames(seed)
    config = PostConfig(score_threshold={"default": 0.3}, min_area={"default": 30}, split={"default": "drop"})
    found = steps.follow(truth, predictions, config)
    final = [thresholds.apply(frame, config) for frame in predictions]
    assert found[-1].score == metric.score(truth, final).mean
    assert found[-1].cells == sum(len(frame.cells) for frame in final)
    assert found[0].score == metric.score(truth, predictions).mean
    # Each instance is left or was removed once.
    removed = sum(len(places) for removal in found for places in removal.removed.values())
    assert removed + found[-2].cells == 36


def test_a_frame_that_was_not_predicted(frame, cell) -> None:
    found = steps.follow([frame(cell(0, 0, 10, 10))], [], PostConfig())
    assert {removal.cells for removal in found} == {0}
    assert {removal.score for removal in found} == {0.0}
