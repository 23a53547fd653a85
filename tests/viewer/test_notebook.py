"""The first notebook in JupyterLab as `kit lab` opens it, in a real browser: all its cells, to the viewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kitlib.data import synthetic
from kitlib.stages import record

pytestmark = pytest.mark.slow

NOTEBOOK = "window.jupyterapp.shell.currentWidget"
OPEN = "window.jupyterapp?.shell.currentWidget?.context?.path === 'lab/01_eda.ipynb'"
READY = f"{NOTEBOOK}.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
SAVE = "window.jupyterapp.commands.execute('docmanager:save')"
SHOW = f"number => {{ {NOTEBOOK}.content.activeCellIndex = number; {NOTEBOOK}.content.scrollToItem(number) }}"


def test_all_cells_of_01_run_and_the_viewer_appears(
    kit_lab: Any, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    copy = kit_lab.folder / "01_eda.ipynb"
    notebook = nbformat.read(copy, as_version=4)
    given = {"data": synthetic.write(tmp_path / "cells", images=6, size=(96, 96)), "out": tmp_path / "run"}
    for name, folder in given.items():
        source = notebook.cells[1].source
        assert f'{name}: str = ""' in source
        notebook.cells[1].source = source.replace(f'{name}: str = ""', f'{name}: str = "{folder}"')
    nbformat.write(notebook, copy)

    page = open_page(kit_lab.address)
    page.set_default_timeout(120_000)
    page.wait_for_function(OPEN)
    page.wait_for_function(READY)
    assert page.evaluate(RUN_ALL)  # false where a cell fails
    page.evaluate(SAVE)
    notebook = nbformat.read(copy, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    assert "6 labelled images" in notebook.cells[-1].outputs[0].data["text/plain"]
    left = record.read(tmp_path / "run" / "01_eda")
    assert left is not None
    assert (left.done, left.parameters["folds"], left.parameters["out"]) == (True, 5, str(given["out"]))
    assert left.machine["CPU"] in (tmp_path / "run" / "report.html").read_text()

    (number,) = [i for i, cell in enumerate(notebook.cells) if "viewer.show(" in cell.source]
    page.evaluate(SHOW, number)
    page.wait_for_selector(".kit-viewer canvas")
    page.locator(".kit-viewer").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "viewer.png")
    first = page.locator(".kit-viewer").get_attribute("data-frame")
    page.locator(".kit-viewer").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f".kit-viewer:not([data-frame='{first}'])")
    page.evaluate(SHOW, len(notebook.cells) - 1)
    page.wait_for_timeout(300)
    page.screenshot(path=tmp_path / "end.png")
