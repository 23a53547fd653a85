"""What a notebook keeps of the viewer: the widget in JupyterLab, and a picture everywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbconvert import HTMLExporter

from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.viewer import show

ROOT = Path(__file__).parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"
CODE = """
from kitlib import viewer
from kitlib.data import synthetic
from kitlib.records import Frame
frame = Frame("only <b>", None, 96, 128, synthetic.frame("cort", 0, (96, 128))[1], "cort")
viewer.show([frame])
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data of the viewer's output by who asks a kernel for it: a person, or a program as papermill is."""
    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(ROOT), extra_arguments=["--IPKernelApp.log_level=CRITICAL"]
    )
    found: dict[str, Any] = {}
    try:
        for who, allow_stdin in (("program", False), ("person", True)):
            messages: list[dict[str, Any]] = []
            client.execute_interactive(
                CODE, allow_stdin=allow_stdin, timeout=120, output_hook=messages.append
            )
            found[who] = [m["content"] for m in messages if m["msg_type"] == "execute_result"][-1]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return found


def exported(content: dict[str, Any]) -> str:
    """A notebook with this output as an HTML page."""
    output = nbformat.v4.new_output("execute_result", content["data"], metadata=content["metadata"])
    cell = nbformat.v4.new_code_cell("viewer.show([frame])", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    return page


def test_a_program_gets_a_picture_alone(outputs: dict[str, Any]) -> None:
    data = outputs["program"]["data"]
    assert set(data) == {"image/png", "text/plain"}
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_a_person_gets_the_widget_and_a_picture_for_readers(outputs: dict[str, Any]) -> None:
    data = outputs["person"]["data"]
    assert WIDGET in data
    assert data["image/png"].strip() == outputs["program"]["data"]["image/png"].strip()
    assert data["text/plain"] == "viewer of 1 frames; run the cell in JupyterLab to browse them"


@pytest.mark.parametrize("who", ["program", "person"])
def test_the_exported_page_shows_the_picture(outputs: dict[str, Any], who: str) -> None:
    page = exported(outputs[who])
    picture = outputs[who]["data"]["image/png"].replace("\n", "")
    assert f"data:image/png;base64,{picture[:60]}" in page.replace("\n", "")
    assert WIDGET not in page


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(KitError, match="unknown order 'scores'"):
        show([Frame("a", None, 8, 8)], sort="scores")
