"""Real kernels that cannot be started, or die: one sentence with the reason."""

from __future__ import annotations

import json
import sys

import pytest

from kitlib.errors import KitError
from kitlib.stages import runner


@pytest.fixture
def execute(tmp_path, monkeypatch, write_notebook):
    """``execute(code, argv)``: run a notebook of one cell, on a kernel python3 with this command if given."""
    write, cell = write_notebook

    def run(code: str = "", argv: list[str] | None = None) -> str:
        if argv is not None:
            folder = tmp_path / "jupyter" / "kernels" / "python3"
            folder.mkdir(parents=True)
            spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
            (folder / "kernel.json").write_text(json.dumps(spec))
            monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        path = write(tmp_path / "01_eda.ipynb", cell("code", "", tags=["parameters"]), cell("code", code))
        (tmp_path / "out").mkdir()
        with pytest.raises(KitError) as caught:
            runner.execute(path, {}, tmp_path / "out")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def test_killed_in_the_middle(execute):
    assert execute("import os; os.kill(os.getpid(), 9)") == (
        "01_eda: its kernel was killed, most often for want of memory; use a smaller batch or crop"
    )


def test_it_ends_itself(execute):
    assert execute("import os; os._exit(9)").startswith("01_eda: its kernel ended with exit status 9")


def test_a_crash_is_named(execute):
    assert execute("import os; os.kill(os.getpid(), 11)").startswith("01_eda: its kernel died of SIGSEGV")


def test_it_ends_at_its_start(execute):
    said = execute(argv=[sys.executable, "-c", "import ipykernel_launcher_that_is_not_there"])
    assert said == (
        "01_eda: its kernel ended with exit status 1: "
        "ModuleNotFoundError: No module named 'ipykernel_launcher_that_is_not_there'"
    )


def test_it_is_killed_at_its_start(execute):
    said = execute(argv=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert said.startswith("01_eda: its kernel was killed, most often for want of memory")


def test_its_program_is_not_there(execute, tmp_path):
    program = str(tmp_path / "old-environment" / "python")
    said = execute(argv=[program, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    assert said == (
        f"01_eda: the kernel 'python3' cannot be run ({program}: No such file or directory); "
        "install it with: python -m ipykernel install --sys-prefix"
    )


def test_there_is_no_such_kernel(execute, monkeypatch):
    from kitlib.stages import kernel

    monkeypatch.setattr(kernel, "NAME", "no-such-kernel")
    assert execute().startswith("01_eda: there is no Jupyter kernel 'no-such-kernel' here; install it with")


def test_threads_of_a_kernel_sleep_while_they_wait(execute, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert "PASSIVE" in execute("import os; raise ValueError(os.environ['OMP_WAIT_POLICY'])")
