"""Signs of life: each process that a launcher started sends it once a second how many steps it has done.

The messages are datagrams on this host's loopback, so that a full disk cannot stop them. A process that does
not run (stopped, or blocked in the kernel) sends none; a process that runs but hangs sends the same count of
steps again and again. A process that waits for others does not count as hanging, only the one it waits for.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

# Environment variable: the launcher's port and the token that its own processes' messages begin with.
LISTENER = "KIT_HEARTBEAT"
INTERVAL_SECONDS = 1.0
# A step is one layer of the network, one batch read, or one file written: none takes so long.
LONGEST_STEP_SECONDS = 600.0
# On a machine where steps do take minutes, a process hangs after this many times the slowest of them.
_SLOWEST_STEPS = 4
# More time than this between two checks means that the launcher, or the whole machine, was paused.
LONGEST_PAUSE_SECONDS = 5.0


@dataclass
class _Progress:
    """What this process is doing."""

    activity: str = "starting"
    waits: bool = False
    steps: int = 0


_progress = _Progress()


def process_name() -> str:
    """This process among those of its launch."""
    return f"process {os.environ.get('RANK', '0')}"


def start(name: str) -> None:
    """Begin to send this process's signs of life; without a launcher that listens, nothing is sent.

    Once in each process, also in one that was forked from a process that sends its own.
    """
    global _progress
    _progress = _Progress()
    if LISTENER in os.environ:
        arguments = (name, _progress, *os.environ[LISTENER].split())
        threading.Thread(target=_send, args=arguments, name="heartbeat", daemon=True).start()


def beat(activity: str = "") -> None:
    """Count a step done, which ends a wait; ``activity``, as "evaluating", says what begins now."""
    _progress.waits = False
    _progress.steps += 1
    if activity:
        _progress.activity = activity


def wait() -> None:
    """From here to the next step, this process may wait for others for as long as these need."""
    _progress.waits = True


@contextmanager
def waiting() -> Iterator[None]:
    """What is inside may wait for other processes for as long as these need."""
    wait()
    try:
        yield
    finally:
        beat()


def _send(name: str, progress: _Progress, port: str, token: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        while True:
            message = json.dumps({"name": name, "pid": os.getpid(), **vars(progress)})
            with suppress(OSError):
                channel.sendto((token + message).encode(), ("127.0.0.1", int(port)))
            time.sleep(INTERVAL_SECONDS)


@dataclass
class _Watched:
    """A process as its launcher knows it; times in seconds.

    Attributes:
        silent: time since its last message.
        still: time since its count of steps last changed.
        slowest: the longest time that a step of it has taken.
    """

    name: str
    activity: str = ""
    waits: bool = False
    steps: int = 0
    silent: float = 0.0
    still: float = 0.0
    slowest: float = 0.0

    def receive(self, activity: str, waits: bool, steps: int) -> None:
        if (steps, waits) != (self.steps, self.waits):
            if self.steps and not self.waits:
                self.slowest = max(self.slowest, self.still)
            self.still = 0.0
        self.activity, self.waits, self.steps, self.silent = activity, waits, steps, 0.0


class Watch:
    """The launcher's side: receives its processes' messages and says which of them hangs."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        # Other users of this host may send to the port as well.
        self._token = secrets.token_hex(16)
        self._processes: dict[int, _Watched] = {}
        self._checked = time.monotonic()

    @property
    def environment(self) -> dict[str, str]:
        """The variable that the processes must be started with."""
        return {LISTENER: f"{self._socket.getsockname()[1]} {self._token}"}

    def hanging(self) -> str | None:
        """Which process hangs and since when, by the messages until now; None if none does."""
        now = time.monotonic()
        self._receive(min(now - self._checked, LONGEST_PAUSE_SECONDS))
        self._checked = now
        return verdict(self._processes.values())

    def kill(self) -> None:
        """End every process that has sent a message and still exists; SIGKILL ends a stopped one as well."""
        for pid in self._existing():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, seconds: float) -> None:
        self._processes = self._existing()
        for process in self._processes.values():
            process.silent += seconds
            process.still += seconds
        for message in self._messages():
            name, pid = message.pop("name"), message.pop("pid")
            self._processes.setdefault(pid, _Watched(name)).receive(**message)

    def _messages(self) -> Iterator[dict[str, Any]]:
        token = self._token.encode()
        with suppress(BlockingIOError):
            while True:
                datagram = self._socket.recv(4096)
                if datagram.startswith(token):
                    yield json.loads(datagram.removeprefix(token))

    def _existing(self) -> dict[int, _Watched]:
        return {pid: process for pid, process in self._processes.items() if _exists(pid)}


def verdict(processes: Collection[_Watched]) -> str | None:
    """Which of the processes hangs, as a sentence; None if none does.

    A silent process is named before one without progress, which may only wait for an answer from the silent
    one. Of several, the one that hangs longest is named: the others went on until they needed it.
    """
    longest_step = max([LONGEST_STEP_SECONDS, *(_SLOWEST_STEPS * p.slowest for p in processes)])
    silent = [p for p in processes if p.silent > LONGEST_STEP_SECONDS]
    if silent:
        worst = max(silent, key=lambda p: p.silent)
        return f"{worst.name} has not answered for {_words(worst.silent)} (last heard: {worst.activity})"
    still = [p for p in processes if p.steps and not p.waits and p.still > longest_step]
    if still:
        worst = max(still, key=lambda p: p.still)
        return f"{worst.name} has made no progress for {_words(worst.still)} while {worst.activity}"
    return None


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    # The process has ended, or its number is another user's process by now.
    except OSError:
        return False
    return True
