"""The form that all notebooks share: a story in short steps, with parameters that papermill understands."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from kitlib import config
from kitlib.stages import STAGES, notebooks, parameters

PATHS = [notebooks.notebook(stage) for stage in STAGES]

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path: Path) -> list[Any]:
    return nbformat.read(path, as_version=4).cells


def code(path: Path) -> list[str]:
    return [cell.source for cell in cells(path) if cell.cell_type == "code"]


def test_there_is_a_notebook_a_stage_and_no_other() -> None:
    assert sorted(notebooks.NOTEBOOKS.glob("*.ipynb")) == PATHS


@each_notebook
def test_it_begins_with_what_it_does_needs_and_leaves(path: Path) -> None:
    first = cells(path)[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {int(path.stem[:2])} · ")
    for word in ("**needs**", "**leaves**", "**takes**"):
        assert word in first.source


@each_notebook
def test_text_comes_before_code(path: Path) -> None:
    """No more than five cells of code follow each other without a word."""
    run = 0
    for cell in cells(path)[3:]:
        run = run + 1 if cell.cell_type == "code" else 0
        assert run <= 5, cell.source


@each_notebook
def test_cells_are_short_and_define_nothing(path: Path) -> None:
    parameters_cell, *others = code(path)
    assert len(parameters_cell.splitlines()) <= 40
    assert all(len(source.splitlines()) <= 30 for source in others)
    for source in others:
        kinds = {type(node) for node in ast.walk(ast.parse(source))}
        assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef}, source


@each_notebook
def test_the_first_code_is_plain_parameters_with_help(path: Path) -> None:
    tagged = [bool(cell.metadata.get("tags")) for cell in cells(path) if cell.cell_type == "code"]
    assert tagged == [True, *[False] * (len(tagged) - 1)]
    first = code(path)[0]
    for line in first.splitlines():
        (node,) = ast.parse(line).body
        assert isinstance(node, ast.AnnAssign), line
        ast.literal_eval(node.value)
        assert "  # " in line, line
    assert list(notebooks.parameters(path))[:2] == ["data", "out"]


@each_notebook
def test_the_parameters_are_those_of_the_stage_s_class(path: Path) -> None:
    """Names, order, values, types and help: the first cell repeats what is declared there."""
    declared = parameters.MODELS[path.stem]
    lines = code(path)[0].splitlines()
    assert [line.partition(":")[0] for line in lines] == list(config.fields(declared))
    assert parameters.read(path.stem, notebooks.parameters(path)) == declared()
    for name, line in zip(config.fields(declared), lines, strict=True):
        assert line.rpartition("  # ")[2] == config.description(declared, name)
        plain = config.to_dict(declared())[name]
        assert line.startswith(f"{name}: {type(plain).__name__} = "), line


@each_notebook
def test_papermill_finds_every_parameter_and_its_help(path: Path) -> None:
    found = papermill.inspect_notebook(path)
    expected = notebooks.parameters(path)
    assert list(found) == list(expected)
    for name, parameter in found.items():
        assert ast.literal_eval(parameter["default"]) == expected[name]
        assert len(parameter["help"]) > 5, name
        assert parameter["inferred_type_name"] == type(expected[name]).__name__, name


@each_notebook
def test_it_begins_and_finishes_its_own_stage(path: Path) -> None:
    assert f'stage = stages.begin("{path.stem}", data, out)' in "\n".join(code(path)[1:4])
    assert code(path)[-1].count("stage.finish(") == 1
