"""What is known of earlier runs, data folders told apart, and the table at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib import files
from kitlib.errors import KitError
from kitlib.stages import record


def test_a_record_comes_back(tmp_path: Path) -> None:
    begun = record.Record("key", False, 0.0, {"max_iter": 3, "schedule": {"max_lr": 1e-5}}, "training")
    begun.save(tmp_path)
    assert record.read(tmp_path) == begun
    begun.finished(2.5).save(tmp_path)
    assert record.read(tmp_path) == record.Record("key", True, 2.5, begun.parameters, "training")


@pytest.mark.parametrize("content", ['{"key": "k"}', "[]", '{"key": 1, "other": 2}', "null"])
def test_another_version_s_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.json").write_text(content)
    assert record.read(tmp_path) is None
    assert record.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b'{"key": "k"', b'{"key": "\xff"}'])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    """Its results must not be taken for those of other parameters, and moved aside."""
    (tmp_path / "stage.json").write_bytes(content)
    with pytest.raises(
        KitError, match=r"stage\.json is not whole JSON .*; or delete it, and the next run moves"
    ):
        record.read(tmp_path)


def test_former_results_are_kept_under_numbers(tmp_path: Path) -> None:
    folder, shelf = tmp_path / "03_train", tmp_path / "previous"
    assert record.set_aside(folder) is None
    folder.mkdir()
    assert record.set_aside(folder) is None  # nothing in it
    for number in (1, 2, 3):
        folder.mkdir(exist_ok=True)
        (folder / "weights.pth").write_text(str(number))
        assert record.set_aside(folder) == shelf / f"03_train-{number}"
        assert not folder.exists()
    assert [p.read_text() for p in sorted(shelf.glob("*/weights.pth"))] == ["1", "2", "3"]


def test_no_former_result_is_overwritten_when_some_were_deleted(tmp_path: Path) -> None:
    folder, shelf = tmp_path / "03_train", tmp_path / "previous"
    for name in ("03_train-2", "03_train-3"):
        (shelf / name).mkdir(parents=True)
        (shelf / name / "weights.pth").write_text(name)
    folder.mkdir()
    (folder / "weights.pth").write_text("new")
    assert (record.set_aside(folder) / "weights.pth").read_text() == "new"
    assert (shelf / "03_train-3" / "weights.pth").read_text() == "03_train-3"


def test_a_shelf_that_cannot_be_made_is_named_and_nothing_moves(tmp_path: Path) -> None:
    (tmp_path / "previous").write_text("in the way")
    (tmp_path / "03_train").mkdir()
    (tmp_path / "03_train" / "weights.pth").write_text("kept")
    with pytest.raises(KitError, match=r"cannot write .*previous"):
        record.set_aside(tmp_path / "03_train")
    assert (tmp_path / "03_train" / "weights.pth").read_text() == "kept"


# ---------------------------------------- the table at the end of a run


def finished(folder: Path, **metrics) -> Path:
    files.write_json(folder / "metrics.json", {"stage": folder.name, **metrics})
    return folder


def test_rows_stand_in_columns(tmp_path: Path) -> None:
    eda = finished(tmp_path / "01_eda", artefacts=["summary.json"])
    train = finished(tmp_path / "03_train", map=0.41251, artefacts=["a/w.pth", "thresholds.yaml"])
    rows = [record.row(eda, 7.4, skipped=True), record.row(train, 3725.6)]
    assert record.table(rows).splitlines() == [
        "stage     time           score  artefacts",
        "-" * 56,
        "01_eda    0:07 (before)         summary.json",
        "03_train  62:06          0.413  a/w.pth, thresholds.yaml",
    ]


def test_no_rows_leave_the_head() -> None:
    assert record.table([]).splitlines()[0].split() == ["stage", "time", "score", "artefacts"]


def test_a_score_of_nothing_is_a_score(tmp_path: Path) -> None:
    assert record.row(finished(tmp_path / "03_train", map=0.0), 1).score == "0.000"


def test_a_stage_that_left_no_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"03_train/metrics\.json does not exist"):
        record.row(tmp_path / "03_train", 1)
