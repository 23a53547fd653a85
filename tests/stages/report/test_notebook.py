"""Executed notebooks as HTML that needs no network."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from kitlib.errors import KitError
from kitlib.stages.report.notebook import write_html

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
WIDGET = "application/vnd.jupyter.widget-view+json"
#: Whatever would be fetched from elsewhere: scripts, styles, fonts and pictures.
ELSEWHERE = re.compile(
    r"""<script|<link|@import|url\(\s*["']?https?:|\ssrc\s*=\s*["']?https?:""", re.IGNORECASE
)


@pytest.fixture
def executed(tmp_path: Path, write_notebook) -> Path:
    """A notebook with a table, a picture, a formula, a diagram, and a widget with a picture."""
    write, cell = write_notebook
    outputs = [
        {"text/html": "<table><tr><td>0.157</td></tr></table>", "text/plain": "0.157"},
        {"image/png": PIXEL, "text/plain": "<Image>"},
        {WIDGET: {"model_id": "m", "version_major": 2}, "image/png": PIXEL, "text/html": "<b>a widget</b>"},
        {"application/javascript": "alert(1)", "text/plain": "a script"},
    ]
    code = cell("code", "show()")
    code["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data} for data in outputs]
    path = write(
        tmp_path / "03_train.ipynb", cell("markdown", "# Training\n$x^2$\n```mermaid\ngraph\n```"), code
    )
    notebook = json.loads(path.read_text())
    states = {"m": {"model_name": "IntSliderModel", "model_module": "@jupyter-widgets/controls", "state": {}}}
    content = {"state": states, "version_major": 2, "version_minor": 0}
    notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": content}
    path.write_text(json.dumps(notebook))
    return path


def test_the_html_has_every_output_and_fetches_nothing(executed: Path) -> None:
    path = write_html(executed)
    page = path.read_text()
    assert path == executed.with_suffix(".html")
    assert "0.157" in page
    assert page.count(f"data:image/png;base64,{PIXEL}") == 2
    assert "a script" in page
    assert "alert(1)" not in page
    assert not ELSEWHERE.search(page)


def test_a_file_that_is_no_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "03_train.ipynb").write_text("{")
    with pytest.raises(KitError, match=r"03_train\.ipynb is not a notebook that can be read"):
        write_html(tmp_path / "03_train.ipynb")
    assert not (tmp_path / "03_train.html").exists()
