"""Real trainings in which a process is stopped: one sentence names it, and nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from kitlib import train
from kitlib.errors import KitError
from kitlib.runtime import heartbeat
from kitlib.train import events
from kitlib.train.schedule import ScheduleConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc"),
]


def processes(out: Path) -> list[Path]:
    """The folders in /proc of all that a training started."""
    mark = f"KIT_ERROR_FILE={out}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(folder)
        except OSError:
            continue
    return found


def rank_of(folder: Path) -> bytes | None:
    variables = (folder / "environ").read_bytes().split(b"\0")
    return next((v.removeprefix(b"RANK=") for v in variables if v.startswith(b"RANK=")), None)


def parent_of(folder: Path) -> str:
    return (folder / "stat").read_text().rpartition(")")[2].split()[1]


def stop_one(out: Path, worker: bool) -> None:
    """Stop rank 1, or its image worker, once the training runs; its launcher is less patient then."""
    while not any("total_loss" in row for row in events.read(out)):
        time.sleep(0.1)
    members = [folder for folder in processes(out) if rank_of(folder) == b"1"]
    pids = {folder.name for folder in members}
    (chosen,) = [folder for folder in members if (parent_of(folder) in pids) == worker]
    os.kill(int(chosen.name), signal.SIGSTOP)
    heartbeat.LONGEST_STEP_SECONDS = 6.0


@pytest.mark.parametrize("worker", [False, True], ids=["rank", "image worker"])
def test_a_stopped_process_ends_the_training(make_config, tmp_path, monkeypatch, worker):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Set back at the end.
    monkeypatch.setattr(heartbeat, "LONGEST_STEP_SECONDS", heartbeat.LONGEST_STEP_SECONDS)
    config = make_config(max_iter=100_000, schedule=ScheduleConfig(), val="", workers=1)
    thread = threading.Thread(target=stop_one, args=(tmp_path / "out", worker), daemon=True)
    thread.start()
    name = "image worker 0 of process 1" if worker else "process 1"
    with pytest.raises(KitError, match=rf"stopped: {name} has not answered for \d+ seconds.*log\.txt$"):
        train.run(config, processes=2)
    thread.join(10)
    assert processes(tmp_path / "out") == []
