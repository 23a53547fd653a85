"""Locks on a run's folder, between real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kitlib.errors import KitError
from kitlib.runtime import lock

#: A run that says "ready" once it has the lock, then ends when its input does. With CHILD, it starts a
#: process that shares the lock and lives on, as a training does.
RUN = """
import subprocess, sys
from pathlib import Path
from kitlib.errors import KitError
from kitlib.runtime import lock

folder, kind = Path(sys.argv[1]), sys.argv[2]
try:
    if kind == "notebook":
        lock.enter(folder, "03_train")
        print("ready", flush=True)
        sys.stdin.read()
        sys.exit()
    with lock.hold(folder, "--profile paper"):
        if kind == "run with a child":
            subprocess.Popen([sys.executable, "-c", sys.argv[3], str(folder / "ended")])
        print("ready", flush=True)
        sys.stdin.read()
except KitError as error:
    print(error, flush=True)
"""

CHILD = """
import sys, time
from pathlib import Path
from kitlib.runtime import lock

lock.join()
print("child", flush=True)
time.sleep(SECONDS)
Path(sys.argv[1]).touch()
"""


@pytest.fixture
def start(tmp_path: Path):
    """``start(kind)``: a process that locks the folder ``out``, once it has said what came of it."""
    processes = []

    def begin(kind: str, child_seconds: float = 0) -> tuple[subprocess.Popen, str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", RUN, str(tmp_path / "out"), kind]
        command.append(CHILD.replace("SECONDS", str(child_seconds)))
        process = subprocess.Popen(command, **pipes)
        processes.append(process)
        said = process.stdout.readline().strip()
        if kind == "run with a child":
            said = " ".join(sorted([said, process.stdout.readline().strip()]))
        return process, said

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_second_run_is_told_who_writes_there(start, out: Path) -> None:
    first, said = start("run")
    assert said == "ready"
    with pytest.raises(KitError) as caught, lock.hold(out, "second"):
        pass
    since = json.loads((out / lock.NAME).read_text())["since"]
    assert str(caught.value) == (
        f"{out} is in use by the run '--profile paper' (process {first.pid} on {os.uname().nodename}, "
        f"since {since}); wait until it has ended, stop it, or choose another folder with --out"
    )
    assert since[:4] == time.strftime("%Y")
    first.communicate()
    with lock.hold(out, "second"):
        assert "is in use by the run 'second'" in start("run")[1]


def test_a_killed_run_blocks_nobody(start, out: Path) -> None:
    first, _ = start("run")
    first.send_signal(signal.SIGKILL)
    first.wait()
    with lock.hold(out, "second"):
        pass


def test_a_killed_run_s_training_is_waited_for(start, out: Path) -> None:
    first, said = start("run with a child", 1.0)
    assert said == "child ready"
    first.send_signal(signal.SIGKILL)
    first.wait()
    with lock.hold(out, "second"):
        assert (out / "ended").exists()


def test_a_training_that_does_not_end_is_not_waited_for_for_ever(
    start, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.3)
    first, _ = start("run with a child", 3.0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with pytest.raises(KitError, match="is in use by the run '--profile paper'"), lock.hold(out, "second"):
        pass


def test_a_training_whose_run_is_gone_does_not_join_the_next_one(
    start, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = start("run")
    holder = json.loads((out / lock.NAME).read_text())
    first.communicate()
    start("run")
    monkeypatch.setenv("KIT_RUN_LOCK", json.dumps({"path": str(out / lock.NAME), **holder}))
    with pytest.raises(KitError, match="was taken by the run"):
        lock.join()


def test_notebooks_share_the_folder_with_each_other_and_with_no_run(start, out: Path) -> None:
    first, said = start("notebook")
    assert said == start("notebook")[1] == "ready"
    refusal = rf"in use by the notebook '03_train' \(process {first.pid} "
    with pytest.raises(KitError, match=refusal), lock.hold(out, "run"):
        pass


def test_a_notebook_is_refused_while_a_run_writes(start) -> None:
    start("run")
    assert "is in use by the run '--profile paper'" in start("notebook")[1]


def test_a_notebook_that_a_run_started_shares_its_lock(start, out: Path) -> None:
    with lock.hold(out, "run"):
        assert start("notebook")[1] == "ready"  # a child of this process


def test_a_notebook_that_is_finished_lets_a_run_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIT_RUN_LOCK", raising=False)
    lock.enter(out, "03_train")
    lock.enter(out, "03_train")  # its cell was run again
    lock.leave(out)
    with lock.hold(out, "run"):
        pass


def test_a_file_system_without_locks_is_named(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with lock.hold(out, "run"):
        pass
    assert capsys.readouterr().out == (
        f"{out / lock.NAME}: this file system supports no locks; start no second run into this folder\n"
    )
