"""The user interrupts a cell in JupyterLab: one sentence, and no process stays behind."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from kitlib.runtime import launch

#: A training that never ends; it writes its process id once it runs.
CHILD = """
import os, time
from pathlib import Path
from kitlib.runtime import launch

def main():
    Path(os.environ["SLEEPER"]).write_text(str(os.getpid()))
    time.sleep(300)

launch.child(main)
"""
BEGIN = "from kitlib.stages.notebooks import quiet_errors; quiet_errors(); from kitlib.runtime import launch"


class Notebook:
    """A real kernel, of which cells are run and interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sleeper = folder, folder / "pid"
        (folder / "kit_sleeper.py").write_text(CHILD)
        path = os.pathsep.join([str(folder), str(Path(launch.__file__).parents[2])])
        self.manager = KernelManager()
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path, "SLEEPER": str(self.sleeper)})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(60)
        self.client.execute_interactive(BEGIN, timeout=60)

    def interrupt(self, code: str) -> tuple[str, list[str]]:
        """Run a cell and interrupt it once ``sleeper`` is written: the error's name, the lines that show."""
        self.sleeper.unlink(missing_ok=True)
        sent, shown = self.client.execute(code), ("", [""])
        wait_until(lambda: self.sleeper.is_file() and self.sleeper.read_text())
        self.manager.interrupt_kernel()
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            content = message["content"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "error":
                shown = content["ename"], content["traceback"]
            # Cells that are sent before the kernel is idle again would be dropped, because of the error.
            if content.get("execution_state") == "idle":
                return shown

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that these started."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, parent = int(status.parent.name), int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found |= {number, *descendants(number)}
    return found


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    made = Notebook(tmp_path_factory.mktemp("notebook"))
    yield made
    made.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_an_interrupted_training_is_one_sentence_and_leaves_no_process(notebook: Notebook) -> None:
    out = notebook.folder / "fold_0"
    name, shown = notebook.interrupt(f"launch.launch('kit_sleeper', [], {str(out)!r})")
    sleeper = int(notebook.sleeper.read_text())
    (line,) = [re.sub(r"\x1b\[\d+m", "", text) for text in shown]
    kept = f"interrupted; what was saved until then stays in {out}, run the cell again to go on"
    assert (name, line) == ("Interrupted", f"Interrupted: {kept}")
    wait_until(lambda: not alive(sleeper))
    assert descendants(notebook.manager.provisioner.pid) == set()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_stage_that_had_to_run_first_leaves_no_kernel(notebook: Notebook, write_notebook) -> None:
    """06_submit is interrupted, say, while it is running 03_train before it."""
    write, cell = write_notebook
    begun = f"import os, pathlib, time; pathlib.Path({str(notebook.sleeper)!r}).write_text(str(os.getpid()))"
    path = write(
        notebook.folder / "03_train.ipynb",
        cell("code", "out = ''", tags=["parameters"]),
        cell("code", f"{begun}; time.sleep(300)"),
    )
    code = "from pathlib import Path; from kitlib.stages import runner\n"
    code += f"runner.execute(Path({str(path)!r}), {{}}, Path({str(notebook.folder / 'out')!r}))"
    (notebook.folder / "out").mkdir()
    _, shown = notebook.interrupt(code)
    assert shown[0].endswith("run the cell again to go on")
    assert len(shown) == 1
    wait_until(lambda: not alive(int(notebook.sleeper.read_text())))
    assert descendants(notebook.manager.provisioner.pid) == set()


def test_any_other_interrupted_cell_is_one_sentence(notebook: Notebook) -> None:
    begin = f"import pathlib, time; pathlib.Path({str(notebook.sleeper)!r}).write_text('begun')"
    name, shown = notebook.interrupt(f"{begin}\nfor _ in range(600): time.sleep(0.1)")
    assert (name, len(shown)) == ("KeyboardInterrupt", 1)
    assert shown[0].endswith("interrupted; finished stages stay, run the cell again to go on")
