"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib import files
from kitlib.errors import KitError
from kitlib.stages import summary


def finished(folder: Path, **metrics) -> Path:
    files.write_json(folder / "metrics.json", {"stage": folder.name, **metrics})
    return folder


def test_rows_stand_in_columns(tmp_path: Path) -> None:
    eda = finished(tmp_path / "01_eda", artefacts=["summary.json"])
    train = finished(tmp_path / "03_train", map=0.41251, artefacts=["a/w.pth", "thresholds.yaml"])
    rows = [summary.row(eda, 7.4, skipped=True), summary.row(train, 3725.6)]
    assert summary.table(rows).splitlines() == [
        "stage     time           score  artefacts",
        "-" * 56,
        "01_eda    0:07 (before)         summary.json",
        "03_train  62:06          0.413  a/w.pth, thresholds.yaml",
    ]


def test_no_rows_leave_the_head() -> None:
    assert summary.table([]).splitlines()[0].split() == ["stage", "time", "score", "artefacts"]


def test_a_score_of_nothing_is_a_score(tmp_path: Path) -> None:
    assert summary.row(finished(tmp_path / "03_train", map=0.0), 1).score == "0.000"


def test_a_stage_that_left_no_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"03_train/metrics\.json does not exist"):
        summary.row(tmp_path / "03_train", 1)
