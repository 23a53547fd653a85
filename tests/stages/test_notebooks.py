"""Stages by name, and the code and parameters of notebook files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kitlib.errors import KitError
from kitlib.stages import notebooks as nb


@pytest.fixture
def make(tmp_path: Path, write_notebook):
    """Writes a notebook whose cell of parameters, and one more, hold the given lines."""
    write, cell = write_notebook

    def inside(parameters: str, more: str = "print(1)", text: str = "# Title") -> Path:
        cells = cell("markdown", text), cell("code", parameters, tags=["parameters"]), cell("code", more)
        return write(tmp_path / "a.ipynb", *cells)

    return inside


def test_parameters_are_plain_values_in_order(make) -> None:
    path = make('b = -1  # help\na = {"x": [1, 2.5]}\n\nc = None\n', more="d = 4")
    assert list(nb.parameters(path).items()) == [("b", -1), ("a", {"x": [1, 2.5]}), ("c", None)]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("max_iter = ", r"line 1 \(invalid syntax"),
        ("a = 1\nb = 60 * 60", r"\(malformed node or string"),
        ("a, b = 1, 2", "plain values"),
        ("import os", "plain values"),
        ("a.b = 1", "plain values"),
    ],
)
def test_a_slip_in_the_cell_of_parameters_is_named(make, source: str, problem: str) -> None:
    with pytest.raises(KitError, match=problem) as caught:
        nb.parameters(make(source))
    assert "a.ipynb: the cell of parameters may hold only 'name = value' lines" in str(caught.value)


def test_only_code_counts_in_the_fingerprint(make) -> None:
    """Someone who reads a notebook in JupyterLab and saves it, outputs and all, changes nothing."""
    first = nb.fingerprint(make("a = 1"))
    path = make("a = 1", text="# Another title")
    notebook = json.loads(path.read_text())
    notebook["cells"][2] |= {
        "execution_count": 3,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}],
    }
    notebook["cells"][2]["source"] = notebook["cells"][2]["source"].splitlines(keepends=True)
    path.write_text(json.dumps(notebook))
    assert nb.fingerprint(path) == first
    # The values of parameters count by themselves, each for what it affects.
    assert nb.fingerprint(make("a = 2")) == first
    assert nb.fingerprint(make("a = 1", more="print(2)")) != first


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"cells": [', "is not whole JSON"),
        ("[]", "is not a notebook that can be read"),
        ('{"cells": [{"cell_type": "code"}]}', "is not a notebook"),
        ('{"worksheets": []}', "is not a notebook"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_no_notebook_is_named(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(KitError, match=rf"a\.ipynb {problem}"):
        nb.code(tmp_path / "a.ipynb")


# ------------------------------------------------------------ names


@pytest.mark.parametrize("stage", nb.STAGES)
def test_each_stage_has_a_notebook_and_goes_by_its_number(stage: str) -> None:
    assert nb.notebook(stage).is_file()
    assert nb.resolve(stage[:2]) == nb.resolve(stage) == stage


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
        nb.resolve(name)


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"01_eda\.ipynb does not exist; run from a whole checkout"):
        nb.notebook("01_eda", tmp_path)


def test_a_run_is_named_after_its_profile() -> None:
    assert nb.default_out("paper") == nb.ROOT / "outputs" / "paper"
