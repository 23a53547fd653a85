"""Time and memory of a whole process tree, on real processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import process_tree
import pytest
from process_tree import Memory, Usage, measure


def run(code: str, tmp_path: Path, limit: float = 60) -> Usage:
    with (tmp_path / "log").open("w") as output:
        return measure([sys.executable, "-c", code], output, limit)


# A child keeps the 64 MiB of its parent, shared as after every fork, and fills 32 MiB of its own.
FORK = """
import os, time
held = b"x" * (64 << 20)
child = os.fork()
own = b"y" * (32 << 20) if child == 0 else b""
time.sleep(1.5)
if child:
    os.wait()
"""


def test_a_page_that_two_processes_share_counts_once(tmp_path: Path) -> None:
    usage = run(FORK, tmp_path)
    assert (usage.status, usage.processes) == ("finished", 2)
    assert 96 <= usage.peak.anonymous < 96 + 25
    assert usage.peak.total == pytest.approx(
        usage.peak.anonymous + usage.peak.file + usage.peak.shared, abs=1
    )


def test_shared_memory_is_told_apart(tmp_path: Path) -> None:
    code = "import mmap, time; m = mmap.mmap(-1, 48 << 20); [m.write(b'x' * 4096) for _ in range(12288)]"
    code += "; time.sleep(1.5)"
    assert 48 <= run(code, tmp_path).peak.shared < 50


def test_the_cpu_time_of_a_grandchild_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.6: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert run(code, tmp_path).cpu_seconds >= 0.6


def test_at_the_limit_the_whole_tree_is_stopped(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()"
    )
    usage = run(code, tmp_path, limit=2)
    assert usage.status == "stopped"
    child = Path("/proc", (tmp_path / "pid").read_text(), "cmdline")
    # Nobody may have waited for the killed child; then it has no command line any more.
    assert not child.exists() or child.read_bytes() == b""


def test_a_failure_is_told(tmp_path: Path) -> None:
    assert run("print('why'); raise SystemExit(3)", tmp_path).status == "failed"
    assert (tmp_path / "log").read_text() == "why\n"


def test_a_process_that_has_ended_holds_nothing() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process_tree.memory(child) == Memory()
    assert process_tree.cpu_seconds(child) == 0
    assert process_tree.descendants(child) == [child]
