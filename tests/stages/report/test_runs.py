"""The list of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kitlib.cli import kit
from kitlib.errors import KitError
from kitlib.stages.report import runs as listed


def test_the_list_has_stages_scores_times_and_profiles(runs) -> None:
    demo = runs("demo", {"a": 0}, data="/cells")
    runs.finish(demo, "01_eda", {"images": {}})
    runs.finish(demo, "02_pretrain_livecell", {})
    runs.finish(demo, "05_retrain", {"map": 0.8125})
    runs.finish(runs.folder / "early", "01_eda", {"images": {}})
    (runs.folder / "synthetic").mkdir()
    shown = CliRunner().invoke(kit, ["runs", str(runs.folder)], catch_exceptions=False).output
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["run", "stages", "03", "05", "test", "time", "profile", "data"]
    assert lines[2] == [
        "demo",
        "01",
        "02",
        "03",
        "05",
        "0.700",
        "0.812",
        "6",
        "min",
        "00",
        "s",
        "demo",
        "/cells",
    ]
    assert lines[3] == ["early", "01", "1", "min", "30", "s", "demo"]
    assert len(lines) == 4


def test_stages_from_the_first_on_are_a_range(runs) -> None:
    demo = runs("demo", {"a": 0})
    for stage in ("01_eda", "02_pretrain_livecell"):
        runs.finish(demo, stage, {})
    assert listed.table(runs.folder).splitlines()[2].split()[1] == "01-03"


def test_a_damaged_run_leaves_the_others_in_the_list(runs) -> None:
    runs("good", {"a": 0})
    (runs("bad", {"a": 0}) / "03_train" / "metrics.json").write_text('{"map": ')
    lines = listed.table(runs.folder).splitlines()
    assert lines[2].startswith("good")
    assert lines[3].startswith("bad: ")
    assert "is not whole JSON" in lines[3]


def test_metrics_of_another_form_are_named(runs) -> None:
    path = runs("demo", {"a": 0}) / "03_train" / "metrics.json"
    path.write_text("[1]")
    with pytest.raises(KitError, match=r"metrics\.json must hold names and values"):
        listed.read(path.parents[1])


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=f"{tmp_path} holds no run; make one"):
        listed.table(tmp_path)
    with pytest.raises(KitError, match="nowhere holds no run"):
        listed.table(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, ""), (0.4, ""), (48, "48 s"), (340, "5 min 40 s"), (3599.7, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert listed.duration(seconds) == text
