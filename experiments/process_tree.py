"""What a command and all processes below it take: time, CPU time and memory (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

INTERVAL = 0.2
"""Seconds between two samples of the processes."""

KIB_PER_MIB = 1024.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Proportional set sizes (PSS) in MiB: a page that n processes share counts as 1/n in each.

    Attributes:
        total: everything below.
        anonymous: memory of the processes' own.
        file: pages of mapped files, libraries and data alike.
        shared: shared memory (``/dev/shm``).
    """

    total: float = 0.0
    anonymous: float = 0.0
    file: float = 0.0
    shared: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.total + other.total,
            self.anonymous + other.anonymous,
            self.file + other.file,
            self.shared + other.shared,
        )


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        status: "finished", "failed" (exit status other than 0) or "stopped" (at its time limit).
        seconds: from start to end.
        cpu_seconds: of all of its processes, user and system.
        peak: the memory of all processes together in the sample where it was largest.
        processes: the most that ran at the same time.
    """

    status: Literal["finished", "failed", "stopped"]
    seconds: float
    cpu_seconds: float
    peak: Memory
    processes: int


def measure(
    command: Sequence[str], output: TextIO, limit: float, environment: Mapping[str, str] | None = None
) -> Usage:
    """Run a command to its end, or stop all of its processes at a time limit.

    Args:
        command: the program and its arguments.
        output: takes what the command prints.
        limit: seconds.
        environment: variables of the command; those of this process where left out.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    )
    samples: list[tuple[Memory, int]] = []
    cpu: dict[int, float] = {}
    waited, stopped = None, False
    try:
        while waited is None:
            tree = descendants(process.pid)
            samples.append((sum((memory(pid) for pid in tree), Memory()), len(tree)))
            cpu |= {pid: seconds for pid in tree if (seconds := cpu_seconds(pid))}
            stopped = time.monotonic() - start > limit
            if stopped:
                _kill(tree)
            time.sleep(INTERVAL)
            waited = _wait(process)
    except BaseException:
        _kill(descendants(process.pid))
        raise
    status = "stopped" if stopped else "failed" if process.returncode else "finished"
    peak = max((sample for sample, _ in samples), key=lambda sample: sample.total)
    # Samples miss the last moments of each process; the wait, processes that their parents did not wait for.
    cpu_total = max(waited, sum(cpu.values()))
    return Usage(status, time.monotonic() - start, cpu_total, peak, max(number for _, number in samples))


def descendants(pid: int) -> list[int]:
    """A process and all processes below it."""
    children = defaultdict(list)
    for parent, child in _parents():
        children[parent].append(child)
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children[found[-1]]
    return found


def memory(pid: int) -> Memory:
    """The memory of one process; nothing for one that has ended."""
    kib = {}
    with suppress(OSError):  # the process may end while its file is read
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            kib[name.rstrip(":")] = int(value) / KIB_PER_MIB
    return Memory(*(kib.get(name, 0.0) for name in ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem")))


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far; 0 for one that has ended."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0


def _parents() -> Iterator[tuple[int, int]]:
    """Parent and process, of all processes."""
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdecimal() else None
        if fields:
            yield int(fields[1]), int(name)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may hold blanks; None after its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _wait(process: subprocess.Popen) -> float | None:
    """CPU seconds of an ended process and of all that was waited for below it; None while it runs."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _kill(tree: Iterable[int]) -> None:
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
