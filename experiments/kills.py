"""Kills at random moments: what is run again afterwards ends as if nothing had happened.

python experiments/kills.py [--chains 3] [--minutes 15] [--seed 0] [--out FILE.json]

A chain is a run from 02 to 06 with the smallest model on the smallest cells, its bundle and its rehearsal.
One of its processes gets SIGKILL, SIGTERM or SIGINT, the command is given again, and so on until it comes to
its end. Then losses, tables and submission must be those of an undisturbed run, byte for byte; after each
kill no process may be left, and at the end no half file. Without --out the results replace those in
docs/robustness.md.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil
import robustness

from kitlib.data import synthetic
from kitlib.stages import STAGES
from kitlib.train import events

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_MODEL = {
    **{"fpn_channels": 32, "rpn_pre_nms_topk": [50, 50], "rpn_post_nms_topk": [20, 20], "rpn_batch": 64},
    **{"roi_batch": 24, "box_width": 32, "mask_convs": 1, "mask_width": 32, "detections": 50},
}
_TRAININGS = ("02", "03", "05")
_SETTINGS = (
    *(f"{stage}.model_options={json.dumps(_MODEL)}" for stage in ("02", "03")),
    *(f"{stage}.max_iter=4" for stage in _TRAININGS),
    *(f"{stage}.checkpoint_every=1" for stage in _TRAININGS),
    *(f"{stage}.workers=1" for stage in _TRAININGS),
    *(f"{stage}.augment.crop=[96, 96]" for stage in _TRAININGS),
    *('04.score_threshold={"default": 0.0}', '04.min_area={"default": 1}', "04.min_cells=1"),
    *("03.fold=0", "03.folds=2", "05.margin=1.0", "05.use_retrained=always"),
)
#: Which processes of a command are hit in a chain, and for how many seconds at most each one lives before.
_PLANS = {
    "kit run": ("kit", "kit", "kernel", "kernel", "training", "training", "image worker", "prediction"),
    "kit bundle": ("kit",),
    "kit rehearse": ("kit", "kernel"),
}
_SPANS = {"kit": 25.0, "kernel": 15.0, "training": 8.0, "image worker": 2.0, "prediction": 6.0}
# The longest a command may take once it was hit, and the longest that other processes may outlive it.
_END_SECONDS, _LEFT_SECONDS = 600.0, 60.0
#: Of a run, what must not depend on kills.
_RESULTS = (
    *("03_train/predictions.csv", "03_train/post.yaml", "04_pseudolabel/pseudo.csv"),
    *("05_retrain/predictions.csv", "05_retrain/post.yaml", "06_submit/submission.csv"),
)


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


# -------------------------------------------------------------------------------- one command


class Command:
    """A command of the kit in a process of its own."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name, self.log = name, folder / "log.txt"
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

    def members(self, role: str) -> list[psutil.Process]:
        """Its processes of one kind that live."""
        found = [self.process, *self._below()]
        return [one for one in found if _role(one, self.process) == role]

    def hit(self, role: str, number: signal.Signals, wait: float, stage: Callable[[], str]) -> Kill | None:
        """Send a signal to one of its processes, and wait until all have ended; None where none came to live.

        Args:
            role: the kind of process.
            number: the signal.
            wait: seconds from the moment when there is such a process.
            stage: tells the stage that runs.
        """
        seen: float | None = None
        while self.process.poll() is None:
            members = self.members(role)
            if members and seen is None:
                seen = time.monotonic()
            if members and seen is not None and time.monotonic() - seen >= wait:
                return self._hit(members[-1], role, number, stage())
            # It ended before its moment; the next of its kind is hit at once.
            wait = 0.0 if seen is not None and not members else wait
            time.sleep(0.05)
        return None

    def _hit(self, victim: psutil.Process, role: str, number: signal.Signals, stage: str) -> Kill | None:
        others, second = self._below(), time.monotonic() - self.begun
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            return None
        sent, fault = time.monotonic(), ""
        try:
            self.process.wait(_END_SECONDS)
        except psutil.TimeoutExpired:
            fault = f"{self.name} did not end in {_END_SECONDS:.0f} seconds"
            others += [*self._below(), self.process]
            self.process.kill()
        _, left = psutil.wait_procs([one for one in others if _lives(one)], _LEFT_SECONDS)
        for one in left:
            fault = fault or f"{len(left)} processes were left, as {' '.join(one.cmdline())[-80:]}"
            one.kill()
        text = self.log.read_text(errors="replace")
        if "Traceback (most recent call last)" in text:
            fault = fault or "a traceback: " + text.strip().splitlines()[-1][:160]
        status = int(self.process.wait())
        took = time.monotonic() - sent
        return Kill(self.name, stage, role, number.name, round(second, 1), status, round(took, 1), fault)

    def _below(self) -> list[psutil.Process]:
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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


# -------------------------------------------------------------------------------- a chain


def run_options(data: Path, run: Path) -> list[str]:
    """The options of ``kit run`` for a run of seconds a stage."""
    settings = [part for setting in _SETTINGS for part in ("--set", setting)]
    return ["--profile", "demo", "--data", str(data), "--out", str(run), "--gpus", "0", *settings]


def _commands(data: Path, run: Path) -> dict[str, list[str]]:
    """The arguments of each command of a chain."""
    return {
        "kit run": [*run_options(data, run), "--from", "02"],
        "kit bundle": [str(run)],
        "kit rehearse": [str(run), "--layout", "new", "--images", "1"],
    }


def undisturbed(data: Path, run: Path, folder: Path) -> dict[str, str]:
    """The results of a run without kills.

    Raises:
        click.ClickException: it fails.
    """
    command = Command("kit run", _commands(data, run)["kit run"], folder)
    if command.process.wait():
        raise click.ClickException(f"kit run fails: {command.log.read_text()[-500:]}")
    return results(run)


def chain(data: Path, run: Path, folder: Path, rng: random.Random, deadline: float) -> Iterator[Kill]:
    """Kills until a chain comes to its end; none after the deadline.

    Raises:
        click.ClickException: a command fails that nothing was done to.
    """
    for name, arguments in _commands(data, run).items():
        roles = list(_PLANS[name])
        rng.shuffle(roles)
        while True:
            command = Command(name, arguments, folder)
            role, number = (roles or [""])[0], _SIGNALS[len(roles) % len(_SIGNALS)]
            wait = rng.uniform(0, _SPANS.get(role, 0) / (5 if name == "kit bundle" else 1))
            kill = None
            if role and time.monotonic() < deadline:
                kill = command.hit(role, number, wait, lambda: _stage(run))
            status = command.process.wait()
            if kill is not None:
                roles.pop(0)
                yield kill
            elif status:
                raise click.ClickException(f"{name} fails: {command.log.read_text()[-500:]}")
            if status == 0:
                break


def _stage(run: Path) -> str:
    return next((stage for stage in reversed(STAGES) if (run / stage / "stage.json").is_file()), "")


def results(run: Path) -> dict[str, str]:
    """What a run left, as texts by name: its tables, and the losses of each training by iteration."""
    found = {name: (run / name).read_text() for name in _RESULTS}
    for path in sorted(run.glob("0*/**/" + events.METRICS)):
        rows = (row for row in events.read(path.parent) if "total_loss" in row)
        losses = {row["iteration"]: row["total_loss"] for row in rows}
        found[str(path.relative_to(run))] = json.dumps(losses)
    return found


def differences(run: Path, expected: Mapping[str, str]) -> list[str]:
    """What differs from an undisturbed run's results, and the half files that lie about."""
    found = results(run)
    names = sorted(found.keys() | expected.keys())
    differing = [f"{name} differs" for name in names if found.get(name) != expected.get(name)]
    hidden = [path for path in run.rglob(".*") if path.name not in (".run.lock", ".ipynb_checkpoints")]
    return differing + [f"half file {path.relative_to(run)}" for path in hidden]


@click.command(help=__doc__)
@click.option("--chains", default=3, show_default=True, help="Each has 11 kills.")
@click.option("--minutes", default=15.0, show_default=True, help="After these no further kill is begun.")
@click.option("--seed", default=0, show_default=True, help="Of moments, signals and their order.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
def main(chains: int, minutes: float, seed: int, out: Path | None) -> None:
    """Run chains with kills, and compare each with an undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="kit-kills-") as temporary:
        folder = Path(temporary)
        (folder / "tmp").mkdir()
        data = synthetic.write(folder / "cells", images=6, size=(96, 96))
        expected = undisturbed(data, folder / "undisturbed" / "run", folder)
        deadline, rng = time.monotonic() + 60 * minutes, random.Random(seed)
        kills, faults, ended = [], [], 0
        while ended < chains and time.monotonic() < deadline:
            run = folder / f"chain-{ended}" / "run"
            for kill in chain(data, run, folder, rng, deadline):
                kills.append(kill)
                click.echo(kill)
            faults += differences(run, expected)
            click.echo(faults)
            ended += 1
    faults += [kill.fault for kill in kills if kill.fault]
    values = {**robustness.circumstances(), "seed": seed, "chains": ended}
    values |= {"kills": [asdict(kill) for kill in kills], "faults": faults}
    robustness.keep("kills", values, out)
    click.echo(robustness.kills_table(values))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
