"""A command of the kit, one of whose processes gets a signal."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

# The longest a command may take once it was hit, and the longest that other processes may outlive it.
_END_SECONDS, _LEFT_SECONDS = 600.0, 60.0


class Planned(NamedTuple):
    """A kill to come: of which kind of process, from which stage on, after how many seconds of its life."""

    stage: str
    process: str
    signal: signal.Signals
    wait: float


@dataclass(frozen=True)
class Kill:
    """One signal and what came of it.

    Attributes:
        command: that ran, as "kit run".
        stage: the last stage that it had begun.
        process: what got the signal.
        signal: its name.
        second: after which the command was hit, from its start.
        status: with which the command ended.
        seconds: from the signal until no process was left.
        fault: what was wrong, "" for nothing.
    """

    command: str
    stage: str
    process: str
    signal: str
    second: float
    status: int
    seconds: float
    fault: str


class Command:
    """A command of the kit in a process of its own."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name, self.folder, self.log = name, folder, folder / "log.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
        with self.log.open("w") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "kitlib.cli", *name.split()[1:], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.begun = time.monotonic()

    def hit(self, planned: Planned, stage: Callable[[], str]) -> Kill | None:
        """Send a signal to one of its processes, and wait until all have ended; None where none came to live.

        Args:
            planned: what gets which signal, and when.
            stage: tells the stage that runs.
        """
        wait, seen = planned.wait, math.inf
        while self.process.poll() is None:
            members = [one for one in _processes(self.folder) if _role(one, self.process) == planned.process]
            now = time.monotonic()
            if members and stage() >= planned.stage:
                seen = min(seen, now)
                if now - seen >= wait:
                    return self._hit(members[-1], planned, stage())
            elif seen < math.inf:
                # It ended before its moment; the next of its kind is hit at once.
                wait = 0.0
            time.sleep(0.05)
        return None

    def _hit(self, victim: psutil.Process, planned: Planned, stage: str) -> Kill | None:
        second = time.monotonic() - self.begun
        try:
            victim.send_signal(planned.signal)
        except psutil.NoSuchProcess:
            return None
        sent = time.monotonic()
        fault = self._end() or self._left() or self._traceback()
        took = round(time.monotonic() - sent, 1)
        status = int(self.process.wait())
        name = planned.signal.name
        return Kill(self.name, stage, planned.process, name, round(second, 1), status, took, fault)

    def _end(self) -> str:
        """Wait until the command ends."""
        try:
            self.process.wait(_END_SECONDS)
        except psutil.TimeoutExpired:
            self.process.kill()
            return f"{self.name} did not end in {_END_SECONDS:.0f} seconds"
        return ""

    def _left(self) -> str:
        """Wait until no process of the command is left."""
        deadline = time.monotonic() + _LEFT_SECONDS
        while left := _processes(self.folder):
            if time.monotonic() > deadline:
                lines = [" ".join(one.cmdline())[-80:] for one in left]
                for one in left:
                    one.kill()
                return f"{len(left)} processes were left, as {lines[0]}"
            time.sleep(0.1)
        return ""

    def _traceback(self) -> str:
        text = self.log.read_text(errors="replace")
        shown = "Traceback (most recent call last)" in text
        return f"a traceback: {text.strip().splitlines()[-1][:160]}" if shown else ""


def _processes(folder: Path) -> list[psutil.Process]:
    """All that commands with a folder started, those included whose parents have ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("TMPDIR", "").startswith(str(folder)):
                found.append(process)
    return found


def _role(process: psutil.Process, kit: psutil.Process) -> str:
    """What a process is to a command."""
    try:
        line, parent = " ".join(process.cmdline()), process.parent()
        if process == kit:
            return "kit"
        if "ipykernel_launcher" in line:
            return "kernel"
        if "kitlib.train" in line:
            inside = parent is not None and "kitlib.train" in " ".join(parent.cmdline())
            return "image worker" if inside else "training"
        return "prediction" if "kitlib.predict" in line else ""
    except psutil.Error:
        return ""
