"""A disk that is full in every stage: one sentence says so, earlier results stay, the stage goes on later.

python experiments/full_disk.py [--room KIB ...] [--out FILE.json]

A run of the smallest model lies on a disk of its own, a tmpfs in a mount namespace (Linux, no root needed).
For each stage the disk is made as small as what it holds and some room; the stage must end with one sentence
that names the full disk, and the files of earlier stages must be as they were. With a larger disk it must
then come to its end. Without --out the results replace those in docs/robustness.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import robustness
from kills import run_options

from kitlib import files
from kitlib.data import synthetic
from kitlib.stages import STAGES

_NAMESPACE = "KIT_FULL_DISK"
_WIDE_KIB, _PAGE_KIB = 4 << 20, 4


@dataclass(frozen=True)
class Filled:
    """One stage on a full disk.

    Attributes:
        step: the stage, or "kit bundle".
        room_kib: what the disk had left, in KiB.
        sentence: the last line that it printed; that it had room enough, where it came to its end.
        seconds: until it ended.
        faults: what was not as it should be.
    """

    step: str
    room_kib: int
    sentence: str
    seconds: float
    faults: tuple[str, ...]


def fill(step: str, command: Sequence[str], disk: Path, room_kib: int) -> Filled:
    """Run a step with little room, and again with much.

    Args:
        step: a stage, or "kit bundle".
        command: the arguments of ``kit`` for it.
        disk: where it is mounted.
        room_kib: free space in KiB.
    """
    before = _contents(disk, step)
    _resize(disk, _used_kib(disk) + room_kib)
    begun = time.monotonic()
    status, text = _kit(command)
    seconds = round(time.monotonic() - begun, 1)
    _resize(disk, _WIDE_KIB)
    sentence = (text.strip().splitlines() or [""])[-1].replace(str(disk), "DISK")
    faults = []
    if status == 0:
        sentence = "it had room enough"
    elif "disk is full" not in sentence or "DISK" not in sentence:
        faults.append("the last line does not say that the disk is full, and where")
    if "Traceback (most recent call last)" in text:
        faults.append("a traceback")
    if _contents(disk, step) != before:
        faults.append("files of earlier stages differ")
    status, text = _kit(command)
    if status:
        faults.append(f"it does not go on: {(text.strip().splitlines() or [''])[-1]}")
    return Filled(step, room_kib, sentence, seconds, tuple(faults))


def _kit(arguments: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "kitlib.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def _contents(disk: Path, step: str) -> dict[str, str]:
    """Fingerprints of the files of the stages before a step."""
    stages = STAGES[: STAGES.index(step)] if step in STAGES else STAGES
    paths = [path for stage in stages for path in (disk / "run" / stage).rglob("*") if path.is_file()]
    return {str(path): files.fingerprint(path) for path in sorted(paths)}


def _used_kib(disk: Path) -> int:
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize // 1024


def _resize(disk: Path, kib: int) -> None:
    # A size of 0 would mean no limit.
    subprocess.run(["mount", "-o", f"remount,size={max(kib, _PAGE_KIB)}k", str(disk)], check=True)


@click.command(help=__doc__)
@click.option("--room", "rooms", multiple=True, type=int, default=(64, 512), show_default=True, metavar="KIB")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
def main(rooms: Sequence[int], out: Path | None) -> None:
    """Fill the disk in each stage and in kit bundle."""
    if _NAMESPACE not in os.environ:
        command = ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv]
        os.execvpe(command[0], command, {**os.environ, _NAMESPACE: "1"})
    found: list[Filled] = []
    with tempfile.TemporaryDirectory(prefix="kit-full-disk-") as temporary:
        data = synthetic.write(Path(temporary) / "cells", images=6, size=(96, 96))
        for room in rooms:
            disk = files.make_folder(Path(temporary) / f"disk-{room}")
            subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
            try:
                found += _fill_all(data, disk, room)
            finally:
                subprocess.run(["umount", str(disk)], check=True)
    values = {**robustness.circumstances(), "steps": [asdict(one) for one in found]}
    robustness.keep("full_disk", values, out)
    click.echo(robustness.full_disk_table(values))
    sys.exit(any(one.faults for one in found))


def _fill_all(data: Path, disk: Path, room_kib: int) -> list[Filled]:
    run = disk / "run"
    options = run_options(data, run)
    steps = {stage: ["run", *options, "--from", stage[:2], "--to", stage[:2]] for stage in STAGES}
    steps["kit bundle"] = ["bundle", str(run)]
    found = []
    for step, command in steps.items():
        found.append(fill(step, command, disk, room_kib))
        click.echo(found[-1])
    return found


if __name__ == "__main__":
    main()
