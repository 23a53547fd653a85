"""kit lab: copies that stay as the user left them, the right kernel, and a real JupyterLab."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from kitlib import files
from kitlib.errors import KitError
from kitlib.runtime import launch
from kitlib.stages import STAGES, lab

#: `kit lab` for a copy of the notebooks in another folder.
LAB = """
import sys
from pathlib import Path
from kitlib.stages import lab
lab._FOLDER = Path(sys.argv[1])
lab.start(sys.argv[2:])
"""
TOKEN = "a-token-for-the-test"


def edit(path: Path, text: str) -> None:
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["source"] = text
    path.write_text(json.dumps(notebook))


def title(path: Path) -> str:
    return "".join(json.loads(path.read_text())["cells"][0]["source"])


# ------------------------------------------------------------------------------------------- copies


def test_the_notebooks_are_copied_and_the_kit_s_own_stay(notebooks: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in notebooks.glob("*.ipynb")}
    (said,) = lab.copy_notebooks(notebooks, tmp_path / "lab")
    assert str(tmp_path / "lab") in said
    edit(tmp_path / "lab" / "01_eda.ipynb", "# mine")
    assert {path.name: path.read_bytes() for path in notebooks.glob("*.ipynb")} == before
    assert [path.stem for path in sorted((tmp_path / "lab").glob("*.ipynb"))] == list(STAGES)


def test_a_changed_copy_stays_and_others_are_brought_up_to_date(notebooks: Path, tmp_path: Path) -> None:
    copies = tmp_path / "lab"
    lab.copy_notebooks(notebooks, copies)
    edit(copies / "01_eda.ipynb", "# mine")
    assert len(lab.copy_notebooks(notebooks, copies)) == 1
    for stage in ("01_eda", "03_train"):
        edit(notebooks / f"{stage}.ipynb", "# newer")
    said = lab.copy_notebooks(notebooks, copies)
    assert (title(copies / "01_eda.ipynb"), title(copies / "03_train.ipynb")) == ("# mine", "# newer")
    assert len(said) == 2
    assert said[1].startswith("01_eda.ipynb was changed here and stays, though the kit's own is newer")
    (copies / "01_eda.ipynb").rename(copies / "my_eda.ipynb")
    assert len(lab.copy_notebooks(notebooks, copies)) == 1
    assert (title(copies / "01_eda.ipynb"), title(copies / "my_eda.ipynb")) == ("# newer", "# mine")


def test_a_file_that_was_there_before_stays(notebooks: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab" / "01_eda.ipynb"
    path.parent.mkdir()
    path.write_text("mine")
    lab.copy_notebooks(notebooks, path.parent)
    lab.copy_notebooks(notebooks, path.parent)
    assert path.read_text() == "mine"


def test_a_missing_notebook_is_named(notebooks: Path, tmp_path: Path) -> None:
    (notebooks / "03_train.ipynb").unlink()
    with pytest.raises(KitError, match=r"03_train\.ipynb does not exist"):
        lab.copy_notebooks(notebooks, tmp_path / "lab")


# ------------------------------------------------------------------------------------------- kernel


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which kernels are found, empty; installing puts one into the environment."""
    folder = tmp_path / "jupyter" / "kernels"
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent))
    monkeypatch.setattr("jupyter_client.kernelspec.jupyter_path", lambda *parts: [str(folder)])
    return folder


def write_kernel(folder: Path, program: str) -> None:
    spec = {"argv": [program, "-m", "ipykernel_launcher"], "display_name": "Python 3", "language": "python"}
    files.write_json(folder / "python3" / "kernel.json", spec)


@pytest.mark.parametrize("program", ["python", "python3", sys.executable])
def test_a_kernel_of_this_python_is_taken(kernels: Path, program: str) -> None:
    write_kernel(kernels, program)
    said: list[str] = []
    lab.check_kernel(said.append)
    assert said == []


def test_where_no_folder_has_it_ipykernel_brings_it(kernels: Path) -> None:
    said: list[str] = []
    lab.check_kernel(said.append)
    assert said == []


def test_a_missing_kernel_is_installed(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(command: list[str], **options: object) -> subprocess.CompletedProcess:
        assert command[1:4] == ["-m", "ipykernel", "install"]
        write_kernel(kernels, sys.executable)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)
    monkeypatch.setattr(subprocess, "run", install)
    said: list[str] = []
    lab.check_kernel(said.append)
    assert said == [f"the kernel 'python3' is missing; installing it for {sys.executable}"]


def test_another_python_s_kernel_that_hides_this_one_is_named(
    kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kernel(kernels, "/opt/other/bin/python")
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: done)
    with pytest.raises(KitError, match="'python3' belongs to /opt/other/bin/python; remove it"):
        lab.check_kernel(lambda sentence: None)


def test_a_kernel_that_cannot_be_installed_is_one_sentence(
    kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kernel(kernels, "/opt/other/bin/python")
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nPermissionError: read-only\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(KitError, match=r"cannot be installed \(PermissionError: read-only\); run `"):
        lab.check_kernel(lambda sentence: None)


# ------------------------------------------------------------------------------------------- a server


def ask(port: int, path: str, token: str = TOKEN) -> dict:
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"token {token}"})
    with urlopen(request, timeout=20) as answer:
        return json.load(answer)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> dict:
    end = time.monotonic() + 120
    while True:
        try:
            return ask(port, "/api/status")
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)


@pytest.mark.slow
def test_jupyterlab_serves_the_copies_with_a_kernel_of_this_python(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    root = Path(launch.__file__).parents[2]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "PYTHONPATH": str(root)}
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", LAB, str(tmp_path / "outputs" / "lab"), *options],
            stdout=output,
            stderr=output,
            env=environment,
            cwd=tmp_path,
        )
    try:
        wait_for(port, process, log)
        listed = {item["name"] for item in ask(port, "/api/contents/lab")["content"]}
        assert {f"{stage}.ipynb" for stage in STAGES} <= listed
        kernel = ask(port, "/api/kernelspecs")["kernelspecs"]["python3"]["spec"]["argv"][0]
        assert Path(shutil.which(kernel) or kernel).name.startswith("python")
        with pytest.raises(URLError):
            ask(port, "/api/contents/lab", token="another")
        notebook = ask(port, "/api/contents/lab/01_eda.ipynb")
        assert notebook["content"]["metadata"]["kernelspec"]["name"] == "python3"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) is not None
    assert "the notebooks are copies in" in log.read_text()
