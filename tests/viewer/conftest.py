"""JupyterLab on a folder of its own, and a browser that may speak to it alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TOKEN = "for-this-test"

#: ``kit lab`` for a copy of the notebooks in another folder.
KIT_LAB = """
import sys
from pathlib import Path
from kitlib.stages import lab
lab._FOLDER = Path(sys.argv[1])
lab.start(sys.argv[2:])
"""

#: The notebook of the tests: two synthetic frames, predictions that lack a cell and have a wrong one.
NOTEBOOK = """
from dataclasses import replace
from pathlib import Path

from PIL import Image

from kitlib import viewer
from kitlib.data import synthetic
from kitlib.masks import rle
from kitlib.records import Cell, Frame

frames, predicted = [], []
for seed, category in enumerate(["cort", "shsy5y"]):
    picture, cells = synthetic.frame(category, seed, (192, 256))
    path = Path(f"{category}.png").resolve()
    Image.fromarray(picture).save(path)
    frames.append(Frame(path.stem, path, 192, 256, cells, category))
    found = [replace(cell, score=0.9 - 0.05 * place) for place, cell in enumerate(cells[1:])]
    wrong = Cell(rle.from_crop([[1] * 12] * 12, 4, 4, 192, 256), category, 0.3)
    predicted.append(replace(frames[-1], cells=(*found, wrong)))
viewer.show(frames, {"prediction": predicted}, corrections="corrections.csv")
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium without a window; skips where playwright or the browser is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)} (on Debian: apt install chromium)")
    with playwright.sync_playwright() as play:
        # Chromium's sandbox does not start for root, as in a container.
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Lab(NamedTuple):
    """A running JupyterLab: the address of its notebook, and the folder where that lies."""

    address: str
    folder: Path


@pytest.fixture
def lab(chromium: Any, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab, with the notebook of the tests."""
    home = tmp_path / "lab"
    home.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [nbformat.v4.new_code_cell(NOTEBOOK.strip())]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / "viewer.ipynb")
    with _server(home, "-m", "jupyterlab") as address:
        yield Lab(f"{address}lab/tree/viewer.ipynb?reset&token={TOKEN}", home)


@pytest.fixture
def kit_lab(chromium: Any, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab as ``kit lab`` starts it, at the address that it opens; the folder has the copies."""
    home = tmp_path / "home"
    home.mkdir()
    copies = tmp_path / "outputs" / "lab"
    with _server(home, "-c", KIT_LAB, str(copies)) as address:
        yield Lab(f"{address}?reset&token={TOKEN}", copies)


def _settings(home: Path, name: str, values: dict[str, Any]) -> None:
    folder = home / "settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))


@contextmanager
def _server(home: Path, *program: str) -> Iterator[str]:
    """A server of JupyterLab, started by a Python program, with its settings in a folder; its address."""
    # JupyterLab would ask its makers for news.
    _settings(home, "notification", {"fetchNews": "false", "checkForUpdates": False})
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = {**os.environ, **{name: str(home / place) for name, place in places.items()}}
    environment["PYTHONPATH"] = str(ROOT)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--expose-app-in-browser"]
    command = [sys.executable, *program, *options, f"--IdentityProvider.token={TOKEN}"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    try:
        yield _address(home, server)
    finally:
        server.terminate()
        server.wait(20)


def _address(home: Path, server: subprocess.Popen) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        for path in (home / "runtime").glob("jpserver-*.json"):
            text = path.read_text()
            if text.endswith("}"):
                return json.loads(text)["url"]
        time.sleep(0.1)
    raise AssertionError((home / "server.log").read_text()[-2000:])


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(address, **options)``: a page; the test fails where it asks another host."""
    contexts, strangers = [], []

    def note(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            strangers.append(request.url)

    def open_at(address: str, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1500, "height": 1050}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", note)
        page.goto(address)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert strangers == []
