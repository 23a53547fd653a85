"""How soon the main job is at work on a machine that is set up."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from harness import Row, Skip

from kitlib.data import synthetic

ROOT = Path(__file__).resolve().parents[2]


def until_a_stage_runs(data: Path, out: Path) -> float:
    """Seconds from the call of run_all.sh until it says that the first stage is running."""
    command = [str(ROOT / "run_all.sh"), "--data", str(data), "--out", str(out), "--to", "01"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        for line in job.stdout:
            if "running" in line:
                taken = time.perf_counter() - start
                job.communicate()  # it may finish: a stage that is killed would go on later
                return taken
    raise Skip("run_all.sh ended before a stage ran; call it by hand to see why")


def rows():
    """The start of the main job, its set-up checked and found whole."""
    with tempfile.TemporaryDirectory() as folder:
        data = synthetic.write(Path(folder) / "cells", images=6, size=(96, 96))
        taken = min(until_a_stage_runs(data, Path(folder) / f"run_{n}") for n in range(2))
    yield Row("start", "./run_all.sh on a set-up machine, until the first stage runs", taken, bar=3)
