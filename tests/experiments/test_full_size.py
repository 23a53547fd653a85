"""Measuring at full size: made-up predictions, tables by hand, and the steps on a very small folder."""

from __future__ import annotations

import json
from pathlib import Path

import full_size as experiment
import full_size_steps as steps
import numpy as np
import pytest
from click.testing import CliRunner
from full_size import Measurement
from made_up import predictions
from process_tree import Memory, Usage

from kitlib import records
from kitlib.data import competition, synthetic
from kitlib.data.synthetic import full_size
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.submission import writer

SMALL = {"share": 0.002, "size": (64, 64)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_size.ensure(tmp_path_factory.mktemp("full_size") / "data-0.002", **SMALL)


@pytest.fixture(scope="module")
def work(data: Path) -> Path:
    folder = data.with_name("work-0.002")
    steps.main(steps.PREPARATION, data, folder)
    return folder


# -------------------------------------------------------------------------------- predictions


def test_each_true_cell_is_found_a_little_off_beside_a_false_one() -> None:
    _, cells = synthetic.frame("shsy5y", 5, (200, 240))
    truth = Frame("a", None, 200, 240, cells, "shsy5y")
    (usual,), (larger,) = predictions([truth], seed=1)
    assert len(usual.cells) == len(larger.cells) == 2 * len(cells)
    overlap = rle.iou([c.mask for c in cells], [c.mask for c in usual.cells[::2]]).diagonal()
    assert 0.4 < overlap.mean() < 0.95
    scores = np.array([cell.score for cell in usual.cells])
    assert scores[::2].mean() > scores[1::2].mean() + 0.2


def test_masks_at_the_lower_threshold_are_a_pixel_larger() -> None:
    square = rle.from_crop(np.ones((10, 10)), 20, 20, 50, 50)
    (usual,), (larger,) = predictions([Frame("a", None, 50, 50, (Cell(square, "cort"),))], seed=0)
    for small, large in zip(usual.cells, larger.cells, strict=True):
        inner, outer = rle.to_mask(small.mask), rle.to_mask(large.mask)
        assert (outer & inner).sum() == inner.sum()
        x0, y0, x1, y1 = rle.boxes([small.mask])[0]
        if x0 > 0 and y0 > 0 and x1 < 50 and y1 < 50:
            # A square of 10 pixels with one more at each side, without the corners.
            assert outer.sum() == 140
        assert small.score == large.score


# -------------------------------------------------------------------------------- tables


def measurement(share: float, status: str, seconds: float, peak: float) -> Measurement:
    usage = Usage(status, seconds, 2 * seconds, Memory(peak, peak / 2, 0, 0), 3)
    return Measurement("folds", share, usage, {"reading": 1.25}, "")


def test_growth_is_from_one_finished_share_to_the_next() -> None:
    rows = [
        measurement(0.25, "finished", 2, 100),
        measurement(0.5, "stopped", 9, 900),
        measurement(1, "finished", 9, 150),
    ]
    lines = experiment.table(rows).splitlines()
    assert lines[2] == "| folds | 0.25 | finished | 2.0 | 4.0 | 100 | 50 | 3 | reading 1.2 s |"
    assert lines[-1] == "| folds | 0.25 to 1 | x 4.50 | x 4.50 | x 1.50 |"
    assert sum(line.startswith("| folds") for line in lines) == 4


def test_a_failed_step_tells_why() -> None:
    failed = measurement(1, "failed", 1, 1)
    told = Measurement(failed.step, 1, failed.usage, {}, "error: a | b")
    assert experiment.table([told]).splitlines()[2].endswith("| error: a / b |")


# -------------------------------------------------------------------------------- steps


def test_pseudo_labels_reach_the_job_of_the_retraining(data: Path, work: Path) -> None:
    labelled = competition.labelled(data)
    for name, frames in {"train": labelled[1:], "val": labelled[:1]}.items():
        records.write_frames(work / "03_train" / f"{name}.npz", frames)
    steps.main("04", data, work)
    steps.main("05", data, work)
    kept = records.read_frames(work / "04_pseudolabel" / "pseudo.npz")
    together = records.read_frames(work / "05_retrain" / "train.npz")
    assert len(together) == len(labelled) - 1 + len(kept)
    assert json.loads((work / "05.json").read_text()).keys() == {"reading", "job file"}


def test_the_submission_is_valid(data: Path, work: Path) -> None:
    steps.main("06", data, work)
    assert writer.check(work / "06_submit" / "submission.csv", data) == []


def test_a_step_whose_input_is_missing_names_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"pseudo\.npz does not exist; run the stage that writes it"):
        steps.main("05", data, tmp_path)


def test_the_command_measures_a_step_in_a_process_of_its_own(data: Path, work: Path, tmp_path: Path) -> None:
    arguments = ["--share", "0.002", "--size", "64x64", "--only", "06", "--out", str(tmp_path / "r.json")]
    result = CliRunner().invoke(experiment.main, [str(data.parent), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "r.json").read_text())["measurements"]
    assert (row["step"], row["share"], row["usage"]["status"]) == ("06", 0.002, "finished")
    # numpy and pandas alone take more than that.
    assert row["usage"]["peak"]["total"] > 30
    assert (tmp_path / "r.md").read_text() in result.output


def test_an_unknown_step_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(experiment.main, [str(tmp_path), "--only", "7"])
    assert "unknown step ['7']; the steps are 01, livecell" in result.output
    assert list(tmp_path.iterdir()) == []
