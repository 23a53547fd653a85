"""The record of a training: appended to, cut back on resuming, read as a table."""

import json
import math

import pytest

from kitlib.errors import KitError
from kitlib.train import events


def test_a_resumed_training_leaves_no_row_twice(tmp_path):
    first = events.Events(tmp_path, 0)
    for iteration in range(1, 6):
        first.write({"iteration": iteration, "total_loss": 1.0 / iteration, "run": 1})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "tot')  # killed while writing
    second = events.Events(tmp_path, 3)
    for iteration in range(4, 7):
        second.write({"iteration": iteration, "total_loss": 1.0 / iteration, "run": 2})
    second.close()
    rows = events.read(tmp_path)
    assert [(r["iteration"], r["run"]) for r in rows] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


def test_a_row_that_is_being_written_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iter')
    assert events.read(tmp_path) == [{"iteration": 1}]
    assert events.read(tmp_path / "nowhere") == []


def test_curves_hold_one_row_an_iteration_with_its_scores(tmp_path):
    record = events.Events(tmp_path, 0)
    record.write({"iteration": 1, "total_loss": 2.0})
    record.write({"iteration": 2, "total_loss": math.nan})
    record.write({"iteration": 2, "map": 0.25})
    record.note(2, "something odd", skipped=["a"])
    record.write_curves()
    record.close()
    table = events.curves(tmp_path)
    assert table["iteration"].tolist() == [1, 2]
    assert table["map"][1] == 0.25
    assert math.isnan(table["total_loss"][1])
    assert (tmp_path / "curves.csv").read_text().splitlines()[0] == "iteration,total_loss,map"
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"iteration": 2, "total_loss": None}  # NaN is not JSON
    assert json.loads(lines[3]) == {"iteration": 2, "note": "something odd", "skipped": ["a"]}
    assert list((tmp_path / "tensorboard").iterdir())


def test_other_processes_write_nothing(tmp_path):
    silent = events.Events(tmp_path / "none", 0, writes=False)
    silent.write({"iteration": 1})
    silent.note(1, "odd")
    silent.write_curves()
    silent.close()
    assert not (tmp_path / "none").exists()


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="cannot write"):
        events.Events(tmp_path / "file", 0)
