"""The viewer in JupyterLab, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kitlib.data import corrections, synthetic
from kitlib.masks import rle
from kitlib.masks.rle import RLE

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 192, 256
CELLS = synthetic.frame("cort", 0, (HEIGHT, WIDTH))[1]
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = "void window.jupyterapp.commands.execute('notebook:run-all-cells')"
DARK = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"


class Page:
    """The page with the viewer, as a person uses it."""

    def __init__(self, page: Any, artefacts: Path) -> None:
        self._page, self._artefacts = page, artefacts
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.wait_for_function(READY)
        page.evaluate(RUN_ALL)
        self.viewer = page.locator(".kit-viewer")
        self.wait("data-frame", "cort")

    def wait(self, attribute: str, value: str) -> None:
        self._page.wait_for_selector(f".kit-viewer[{attribute}='{value}']")

    def wait_for_text(self, part: str, text: str) -> None:
        self._page.wait_for_selector(f".kit-viewer .{part}:has-text({text!r})")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the frame is on the page, while the whole frame is shown."""
        box = self.viewer.locator("canvas").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left, top = (box["width"] - scale * WIDTH) / 2, (box["height"] - scale * HEIGHT) / 2
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def click(self, mask: RLE) -> None:
        self._page.mouse.click(*self.place(*inside(mask)))

    def drag(self, *points: tuple[float, float]) -> None:
        self._page.mouse.move(*self.place(*points[0]))
        self._page.mouse.down()
        for point in points[1:]:
            self._page.mouse.move(*self.place(*point), steps=4)
        self._page.mouse.up()

    def picture(self, name: str) -> None:
        self._page.screenshot(path=self._artefacts / f"{name}.png")


def inside(mask: RLE) -> tuple[float, float]:
    """The centre of a pixel in the middle of a mask."""
    y, x = np.nonzero(rle.to_mask(mask))
    middle = np.argmin(np.hypot(x - x.mean(), y - y.mean()))
    return x[middle] + 0.5, y[middle] + 0.5


def test_frames_are_browsed_and_corrected(lab: Any, open_page: Callable[..., Any], tmp_path: Path) -> None:
    """Four of five cells are found, and one is predicted where there is none."""
    saved = lab.folder / "corrections.csv"
    page = open_page(lab.address)
    shown = Page(page, tmp_path)
    keyboard, viewer = page.keyboard, shown.viewer
    shown.wait_for_text("kit-score", "0.667")
    shown.picture("1-opened")

    viewer.focus()
    keyboard.press("ArrowRight")
    shown.wait("data-frame", "shsy5y")
    shown.picture("2-next-frame")
    keyboard.press("ArrowLeft")
    shown.wait("data-frame", "cort")

    viewer.get_by_label("Score threshold").fill("0.5")
    shown.wait_for_text("kit-score", "0.800")
    viewer.focus()
    keyboard.press("r")
    shown.wait_for_text("kit-reasons", "1: score below 0.50")

    keyboard.press("t")
    shown.click(CELLS[0].mask)
    shown.picture("3-chosen")
    assert f"area {rle.areas([CELLS[0].mask])[0]} px" in viewer.locator(".kit-detail").inner_text()
    assert not saved.exists()
    keyboard.press("Delete")
    shown.wait_for_text("kit-said", "deleted in cort, saved")
    assert masks(saved) == [cell.mask for cell in CELLS[1:]]

    keyboard.press("d")
    # A rectangle where no cell is, from (200, 20) to (230, 40).
    shown.drag((200, 20), (230, 20), (230, 40), (200, 40), (200, 20.5))
    shown.wait_for_text("kit-said", "outlined in cort, saved")
    shown.picture("4-outlined")
    assert rle.boxes(masks(saved)[-1:]).tolist() == [[200, 20, 230, 40]]
    keyboard.press("u")
    shown.wait_for_text("kit-said", "undone in cort")
    assert masks(saved) == [cell.mask for cell in CELLS[1:]]

    _, y0, _, y1 = rle.boxes([CELLS[1].mask])[0].tolist()
    middle = inside(CELLS[1].mask)[0]
    keyboard.press("s")
    shown.drag((middle, y0 - 2), (middle, y1 + 2))
    shown.wait_for_text("kit-said", "split in cort, saved")
    pieces = masks(saved)[:2]
    assert len(masks(saved)) == len(CELLS)
    assert rle.areas(pieces).sum() == rle.areas([CELLS[1].mask])[0]
    # Both pieces are chosen now.
    keyboard.press("m")
    shown.wait_for_text("kit-said", "merged in cort, saved")
    assert masks(saved) == [cell.mask for cell in CELLS[1:]]

    # JupyterLab's own keys: d, d would delete the cell of the notebook.
    keyboard.press("d")
    keyboard.press("d")
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 1

    with page.expect_download() as download:
        keyboard.press("x")
    assert download.value.suggested_filename == "cort.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")

    page.evaluate(DARK)
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    page.wait_for_timeout(500)
    shown.picture("5-dark")


def masks(path: Path) -> list[RLE]:
    """The masks of the corrected frame."""
    return [cell.mask for cell in corrections.read(path)["cort"].cells]
