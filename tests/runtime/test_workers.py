"""Objects in processes of their own: their results, their errors, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from kitlib.errors import KitError
from kitlib.runtime import launch
from kitlib.runtime.workers import Worker, call_each, started


class Counter:
    """Counts, prints, dies and fails."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise KitError("start is below 0; give another one")
        self.value = start

    def add(self, number: int) -> tuple[int, int]:
        print("printed where the answers go")
        self.value += number
        return self.value, os.getpid()

    def fail(self) -> None:
        raise ZeroDivisionError("of its own")

    def fail_strangely(self) -> None:
        class Local(Exception):
            pass

        raise Local("cannot be pickled")

    def sleep(self) -> None:
        time.sleep(60)


@pytest.fixture
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers find this module, as they find the kit's."""
    monkeypatch.setattr(Counter, "__module__", "test_workers")
    monkeypatch.setitem(sys.modules, "test_workers", sys.modules[__name__])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.usefixtures("_importable")
def test_each_keeps_its_state_and_errors_leave_it_alive() -> None:
    with started(Counter, [(0,), (100,)]) as workers:
        first = call_each(workers, "add", [(1,), (1,)])
        assert [value for value, _ in first] == [1, 101]
        assert len({os.getpid(), *(pid for _, pid in first)}) == 3
        with pytest.raises(ZeroDivisionError, match="of its own"):
            workers[0].call("fail")
        with pytest.raises(KitError, match="Local: cannot be pickled"):
            workers[0].call("fail_strangely")
        assert workers[0].call("add", 1)[0] == 2
        pids = [pid for _, pid in first]
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(launch.Died, match=r"a worker process was killed by SIGKILL.*run the same again"):
            workers[1].call("add", 1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.usefixtures("_importable")
def test_all_are_started_before_one_is_waited_for() -> None:
    """What a worker is given may be more than a pipe holds: then sending it waits for the worker."""
    running = []

    class Start:
        def __reduce__(self) -> tuple[Any, ...]:
            running.append(len(psutil.Process().children()))
            return int, (5,)

    before = len(psutil.Process().children())
    with started(Counter, [(Start(),), (Start(),)]) as workers:
        assert [value for value, _ in call_each(workers, "add", [(1,), (2,)])] == [6, 7]
    assert running == [before + 2, before + 2]


@pytest.mark.usefixtures("_importable")
def test_what_cannot_be_made_says_so_at_the_first_call() -> None:
    worker = Worker(Counter, -1)
    try:
        with pytest.raises(KitError, match="start is below 0"):
            worker.call("add", 1)
    finally:
        worker.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.usefixtures("_importable")
def test_workers_of_a_killed_process_end() -> None:
    code = """
from kitlib.runtime.workers import Worker
from test_workers import Counter
worker = Worker(Counter, 0)
print(worker.call("add", 1)[1], flush=True)
worker.call("sleep")
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=launch.with_kit(dict(os.environ))
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    # It sleeps, and cannot see that its input has ended: it looks for its parent as well.
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
