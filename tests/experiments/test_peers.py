"""The comparison with other tools: checkpoints by CPU time, files of results, choice of thresholds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import compare
import measure
import numpy as np
import page
import pytest
import runner
from numpy.typing import NDArray

from kitlib import metric
from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.records import Cell, Frame

HEIGHT, WIDTH = 30, 40


def square(x: int, y: int, score: float | None = None, side: int = 10) -> Cell:
    return Cell(rle.from_crop(np.ones((side, side)), x, y, HEIGHT, WIDTH), "cell", score)


def frame(name: str, *cells: Cell) -> Frame:
    return Frame(name, None, HEIGHT, WIDTH, cells, "cell")


TRUTH = [frame(name, square(2 * number, 0)) for number, name in enumerate("abcdef")]


def test_the_setting_and_the_lowest_score_are_those_of_the_best_metric() -> None:
    """The right cell has a score of 0.5 and a wrong one 0.3: any lowest score between is perfect."""
    right = [frame(t.id, replaced(t, 0.5), square(25, 15, 0.3)) for t in TRUTH]
    wrong = [frame(t.id, square(25, 15, 0.9)) for t in TRUTH]
    scores, chosen = compare.choose(TRUTH, {"wrong": wrong, "right": right})
    assert scores.tolist() == [1.0] * 6
    assert chosen == ("right", 0.35)


def test_no_image_is_judged_with_what_was_chosen_on_it() -> None:
    """Image a alone is better off with another setting, which the five others do not choose."""
    first = [frame(t.id, *([] if t.id == "a" else [replaced(t, 0.9)])) for t in TRUTH]
    second = [frame(t.id, *([replaced(t, 0.9)] if t.id == "a" else [])) for t in TRUTH]
    scores, chosen = compare.choose(TRUTH, {"second": second, "first": first})
    assert scores.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert chosen[0] == "first"


def replaced(true: Frame, score: float) -> Cell:
    return Cell(true.cells[0].mask, "cell", score)


def test_scores_by_lowest_score_are_the_metric_of_what_is_left() -> None:
    rng = np.random.default_rng(0)
    truth = [frame(name, *(square(*place, side=8) for place in ((0, 0), (12, 4), (25, 15)))) for name in "ab"]
    found = [
        frame(t.id, *(square(*rng.integers(0, 28, 2), round(rng.random(), 3), side=9) for _ in range(12)))
        for t in truth
    ]
    table = compare._by_lowest_score(truth, found)
    for row, lowest in zip(table, compare.SCORES, strict=True):
        kept = [
            frame(f.id, *overlap.resolve([c for c in f.cells if c.confidence >= lowest], HEIGHT, WIDTH))
            for f in found
        ]
        assert row.tolist() == pytest.approx(list(metric.score(truth, kept).by_image.values()))


def test_a_runner_leaves_a_checkpoint_for_each_time_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes 20 seconds; checkpoints are due after one and two minutes."""
    seconds = iter(range(0, 10_000, 20))
    monkeypatch.setattr(runner.time, "process_time", lambda: next(seconds))
    data, out = prepared(tmp_path / "data"), tmp_path / "out"
    trained: list[int] = []

    def train(training: list[runner.Image], start: runner.Start) -> None:
        clock = start(lambda path: path.write_text(str(clock.steps)))
        while clock.step():
            pass
        trained.append(clock.steps)

    def load(path: Path, training: list[runner.Image]) -> runner.Predictor:
        def predict(pixels: NDArray[np.uint8]) -> Iterator[runner.Instances]:
            yield runner.Instances("default", (pixels > 0).astype(int), np.array([0.75]))

        return predict

    monkeypatch.setattr(sys, "argv", ["", str(data), str(out), "--minutes", "1", "2"])
    for _ in range(2):
        runner.run(train, load, ["numpy"])
    assert len(trained) == 1
    reached = json.loads((out / "training.json").read_text())["checkpoints"]
    assert list(reached) == ["1", "2"]
    assert all(point["cpu_minutes"] >= float(name) for name, point in reached.items())
    truth = [frame(name, square(3, 4)) for name in "vw"]
    point, _ = compare.of_tool(out, truth)["points"]
    assert (point["score"], point["coco_ap"], point["setting"]) == (1.0, 1.0, "default, score 0.05")


def prepared(folder: Path) -> Path:
    """A training image and two validation images of a square, which is as bright as its label."""
    labels = rle.to_mask(square(3, 4).mask).astype(np.int32)
    for kind, values in (("images", labels.astype(np.uint8)), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        for name in "tvw":
            np.save(folder / kind / f"{name}.npy", values)
    (folder / "split.json").write_text(json.dumps({"training": ["t"], "validation": ["v", "w"]}))
    return folder


def test_the_median_diameter_is_that_of_a_disc(tmp_path: Path) -> None:
    training = runner.images(prepared(tmp_path), "training")
    assert runner.median_diameter(training) == pytest.approx(2 * np.sqrt(100 / np.pi))


def test_trainings_of_the_kit_are_shortened() -> None:
    whole, half = (dict(each.split("=", 1) for each in measure.shortened(factor)) for factor in (1, 0.5))
    assert half.pop("03.fold") == "0"
    assert int(half["03_train.max_iter"]) == int(whole["03_train.max_iter"]) / 2


def test_the_page_has_a_row_for_each_tool() -> None:
    point = {"cpu_minutes": 30.2, "steps": 9, "score": 0.5, "low": 0.4, "high": 0.61234, "coco_ap": 0.3}
    point |= {"by_type": {"a": 0.1, "b": 0.9}, "coco_ap_by_type": {}, "setting": "NMS 0.3, score 0.4"}
    result = {
        "data": "cells",
        "validation_images": 7,
        "tool": "stardist",
        "versions": {"stardist": "0.9.2", "memory": "8 GiB"},
    }
    text = page.render([{**result, "points": [{**point, "seconds_an_image": 1.26}]}])
    assert "| cells, 7 validation images | StarDist | 30 | 0.500 (0.400 to 0.612) |" in text
    assert "| a 0.100, b 0.900 | 0.300 | 1.3 | NMS 0.3, score 0.4 |" in text
    assert "- StarDist: stardist 0.9.2.\n" in text
