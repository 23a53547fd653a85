"""A process and its descendants: measure their memory, end them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0


def watch(process: subprocess.Popen) -> int:
    """Wait for a process to end, and return the peak memory of it and its descendants, in bytes.

    Shared pages count once, where the system reports them. When waiting is interrupted, all are ended.
    """
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, sum(map(_memory, descendants(process.pid))))
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
    finally:
        end(process)
    return peak


def descendants(root: int) -> list[int]:
    """The ids of a process and of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found = [root]
    for one in found:
        found += children.get(one, [])
    return found


def _memory(pid: int) -> int:
    """A process's share of memory in bytes, or its resident memory without such a figure; 0 after its end."""
    folder = Path(f"/proc/{pid}")
    with suppress(OSError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError):
        return int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def end(process: subprocess.Popen) -> None:
    """Terminate a process and its descendants, and kill those that do not end in time."""
    if process.poll() is not None:
        return
    found = descendants(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    for pid in found[1:]:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _GRACE_SECONDS
    while any(map(_runs, found[1:])) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
