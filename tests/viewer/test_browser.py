"""The viewer in JupyterLab, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kitlib.data import corrections

pytestmark = pytest.mark.slow

READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = "void window.jupyterapp.commands.execute('notebook:run-all-cells')"


def run(page: Any) -> Any:
    """Run the notebook, and return the viewer when it shows a frame."""
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    page.wait_for_function(READY)
    page.evaluate(RUN_ALL)
    viewer = page.wait_for_selector(".kit-viewer[data-frame='cort']")
    page.wait_for_timeout(300)
    return viewer


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_frames_are_browsed_and_corrected(
    lab: Any, open_page: Callable[..., Any], tmp_path: Path, theme: str
) -> None:
    saved = lab.folder / "corrections.csv"
    saved.unlink(missing_ok=True)
    page = open_page(lab(theme), color_scheme=theme.lower())
    viewer = run(page)
    page.screenshot(path=tmp_path / f"opened-{theme}.png")
