"""Stages by name, and their notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.errors import KitError
from kitlib.stages import names


@pytest.mark.parametrize("stage", names.STAGES)
def test_each_stage_has_a_notebook_and_goes_by_its_number(stage: str) -> None:
    assert names.notebook(stage).is_file()
    assert names.resolve(stage[:2]) == names.resolve(stage) == stage


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("0", "stage '0' may be any of 01_eda, 02_pretrain_livecell, .*; write more of it"),
        ("3_train", "unknown stage '3_train': did you mean '03_train'?"),
        ("07", "unknown stage '07'"),
        ("", "unknown stage ''"),
    ],
)
def test_other_names_are_refused(name: str, problem: str) -> None:
    with pytest.raises(KitError, match=problem):
        names.resolve(name)


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"01_eda\.ipynb does not exist; run from a whole checkout"):
        names.notebook("01_eda", tmp_path)


def test_a_run_is_named_after_its_profile() -> None:
    assert names.default_out("paper") == names.ROOT / "outputs" / "paper"
