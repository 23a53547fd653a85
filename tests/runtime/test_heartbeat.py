"""Signs of life: which of several processes hangs, and that slow ones do not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kitlib.runtime import heartbeat
from kitlib.runtime.heartbeat import Watch, _Watched, verdict

STEP = heartbeat.LONGEST_STEP_SECONDS


def process(name="process 0", steps=5, **others) -> _Watched:
    return _Watched(name, "evaluating", steps=steps, **others)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process(still=STEP - 1, silent=1)], None),
        ([process(still=STEP + 1)], "process 0 has made no progress for 10 minutes while evaluating"),
        # It has not begun: weights may be downloading.
        ([process(steps=0, still=9 * STEP)], None),
        # It waits for process 1, which goes on.
        ([process(waits=True, still=9 * STEP), process("process 1")], None),
        # Stopped, also while it waits or has not begun.
        ([process(silent=STEP + 1, waits=True)], "process 0 has not answered for 10 minutes"),
        ([process(silent=STEP + 1, steps=0)], "process 0 has not answered for 10 minutes"),
        # Process 0 needs an answer of process 1, which was stopped a little later.
        (
            [process(still=STEP + 9), process("process 1", silent=STEP + 2)],
            "process 1 has not answered",
        ),
        # Process 0 went on for some seconds until it needed process 1.
        (
            [process(still=STEP + 1), process("process 1", still=STEP + 9)],
            "process 1 has made no progress",
        ),
        # Steps of 4 minutes are known here: 15 minutes are no hang, 17 are.
        ([process(slowest=240, still=15 * 60)], None),
        ([process(slowest=240, still=17 * 60)], "process 0 has made no progress for 17 minutes"),
    ],
)
def test_who_hangs(processes, expected):
    found = verdict(processes)
    assert found is None if expected is None else found.startswith(expected)


def test_the_slowest_step_is_the_longest_that_has_ended():
    slow = _Watched("process 0")
    # After 50 s it begins, after 7 s comes the next step, after 3 s it waits, for 90 s, and goes on.
    for seconds, steps, waits in [(50, 1, False), (7, 2, False), (3, 2, True), (90, 3, False)]:
        slow.still = seconds
        slow.receive("", waits, steps)
    assert (slow.slowest, slow.still) == (7, 0)


SENDER = """
import sys, time
from kitlib.runtime import heartbeat
heartbeat.INTERVAL_SECONDS = 0.1
heartbeat.start(sys.argv[1])
while True:
    heartbeat.beat("counting")
    time.sleep(0.05)
"""


def sender(watch: Watch, name: str) -> subprocess.Popen:
    root = str(Path(heartbeat.__file__).parents[2])
    environment = {**os.environ, **watch.environment, "PYTHONPATH": root}
    return subprocess.Popen([sys.executable, "-c", SENDER, name], env=environment)


def wait_until(watch: Watch, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition(watch.hanging()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_stopped_process_is_found_and_killed(monkeypatch):
    with closing(Watch()) as watch:
        one, two = sender(watch, "one"), sender(watch, "two")
        wait_until(watch, lambda _: {p.name for p in watch._processes.values()} == {"one", "two"})
        wait_until(watch, lambda _: all(p.steps > 3 for p in watch._processes.values()))
        monkeypatch.setattr(heartbeat, "LONGEST_STEP_SECONDS", 5.0)
        os.kill(two.pid, signal.SIGSTOP)
        found = []
        wait_until(watch, lambda said: said is not None and not found.append(said))
        assert found == ["two has not answered for 5 seconds (last heard: counting)"]
        watch.kill()
        assert (one.wait(30), two.wait(30)) == (-signal.SIGKILL, -signal.SIGKILL)
        watch.hanging()
        assert watch._processes == {}


def test_other_senders_are_not_heard():
    with closing(Watch()) as watch, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        port = int(watch.environment[heartbeat.LISTENER].split()[0])
        stranger.sendto(b'{"name": "x", "pid": 1}', ("127.0.0.1", port))
        time.sleep(0.1)
        assert watch.hanging() is None
        assert watch._processes == {}


def test_a_pause_of_the_launcher_is_nobodys_silence():
    with closing(Watch()) as watch:
        watch._processes = {os.getpid(): process()}
        watch._checked -= 10 * STEP
        assert watch.hanging() is None
        assert watch._processes[os.getpid()].silent == heartbeat.LONGEST_PAUSE_SECONDS
