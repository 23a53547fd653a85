"""Kills at random moments: what is run again afterwards ends as if nothing had happened.

python experiments/kills.py [--chains 3] [--seed 0] [--out FILE.json]

A chain is a run from 02 to 06 with the smallest model on the smallest cells, its bundle and its rehearsal.
One of its processes gets SIGKILL, SIGTERM or SIGINT, the command is given again, and so on until it comes to
its end. Then losses, tables and submission must be those of an undisturbed run, byte for byte; after each
kill no process may be left, and at the end no half file. Without --out the results replace those in
docs/robustness.md.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click
import robustness
from killed_command import Command, Kill, Planned

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
#: Which processes of a command are hit in a chain.
_PLANS = {
    "kit run": ("kit", "kit", "kernel", "kernel", "training", "training", "image worker", "prediction"),
    "kit bundle": ("kit",),
    "kit rehearse": ("kit", "kernel"),
}
#: The stages in which there are such processes, and for how many seconds at most they live before.
_STAGES = {
    **dict.fromkeys(("kit", "kernel"), STAGES[1:]),
    **dict.fromkeys(("training", "image worker"), (STAGES[1], STAGES[2], STAGES[4])),
    "prediction": STAGES[2:],
}
_SPANS = {"kit": 20.0, "kernel": 15.0, "training": 8.0, "image worker": 2.0, "prediction": 5.0}
_BUNDLE_SECONDS = 5.0
#: Of a run, what must not depend on kills.
_RESULTS = (
    *("03_train/predictions.csv", "03_train/post.yaml", "04_pseudolabel/pseudo.csv"),
    *("05_retrain/predictions.csv", "05_retrain/post.yaml", "06_submit/submission.csv"),
)


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


def chain(data: Path, run: Path, folder: Path, number: int, rng: random.Random) -> Iterator[Kill]:
    """Kills until a chain comes to its end.

    Args:
        data: the cells.
        run: the run's folder.
        folder: takes the log and temporary files.
        number: of the chain; with three of them each kind of process gets each signal.
        rng: draws stages and moments.

    Raises:
        click.ClickException: a command fails that nothing was done to.
    """
    for name, arguments in _commands(data, run).items():
        planned = _plan(name, number, rng)
        while True:
            command = Command(name, arguments, folder)
            kill = command.hit(planned[0], lambda: _stage(run)) if planned else None
            status = command.process.wait()
            if kill is not None:
                planned.pop(0)
                yield kill
            elif status:
                raise click.ClickException(f"{name} fails: {command.log.read_text()[-500:]}")
            if status == 0:
                break


def _plan(name: str, number: int, rng: random.Random) -> list[Planned]:
    """The kills of a command, from stage to stage."""
    planned = []
    for place, role in enumerate(_PLANS[name]):
        stage = rng.choice(_STAGES[role]) if name == "kit run" else ""
        wait = rng.uniform(0, _BUNDLE_SECONDS if name == "kit bundle" else _SPANS[role])
        planned.append(Planned(stage, role, _SIGNALS[(place + number) % len(_SIGNALS)], wait))
    return sorted(planned)


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
@click.option("--seed", default=0, show_default=True, help="Of moments, signals and their order.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
def main(chains: int, seed: int, out: Path | None) -> None:
    """Run chains with kills, and compare each with an undisturbed run."""
    # A shell starts what runs in its background with SIGINT ignored, which the commands would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kit-kills-") as temporary:
        folder = Path(temporary)
        (folder / "tmp").mkdir()
        data = synthetic.write(folder / "cells", images=6, size=(96, 96))
        expected = undisturbed(data, folder / "undisturbed" / "run", folder)
        rng = random.Random(seed)
        kills, faults = [], []
        for number in range(chains):
            run = folder / f"chain-{number}" / "run"
            for kill in chain(data, run, folder, number, rng):
                kills.append(kill)
                click.echo(kill)
            faults += differences(run, expected)
            click.echo(f"differences: {faults or 'none'}")
    faults += [kill.fault for kill in kills if kill.fault]
    values = {**robustness.circumstances(), "seed": seed, "chains": chains}
    values |= {"kills": [asdict(kill) for kill in kills], "faults": faults}
    robustness.keep("kills", values, out)
    click.echo(robustness.kills_table(values))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
