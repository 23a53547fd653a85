"""What a stage left of its run: stage.json, what it was run with, and metrics.json, what came of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.errors import KitError

METRICS = "metrics.json"
#: Of these metrics: why a stage had nothing to do.
IDLE = "nothing_to_do"
# The key of results that no run made.
_BY_HAND = "by hand"


@dataclass(frozen=True)
class Record:
    """One stage's run.

    Attributes:
        key: fingerprint of the notebook, its parameters, the data and the stages before it.
        done: whether it came to its end.
        seconds: wall-clock time of the last run.
        parameters: what the notebook was given.
        training: as ``key``, without the parameters that come after training.
        resumable: as ``training``, without those that an interrupted training may change.
        profile: of the run.
        machine: what it was computed on, see ``kitlib.runtime.machine``.
    """

    key: str
    done: bool
    seconds: float
    parameters: dict[str, Any]
    training: str = ""
    resumable: str = ""
    profile: str = ""
    machine: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        files.write_json(folder / "stage.json", asdict(self))

    def finished(self, seconds: float) -> Record:
        return replace(self, done=True, seconds=seconds)


def has_results(folder: Path) -> bool:
    """Whether a stage's folder holds results: its notebook writes metrics.json last."""
    return (folder / METRICS).is_file()


def chosen(out: Path) -> str:
    """The stage of a run whose weights are the best known: 05_retrain if it was run and accepted them (its
    gate let them pass, or ``use_retrained`` is "always"), else 03_train."""
    last = out / "05_retrain" / METRICS
    accepted = last.is_file() and files.read_json(last).get("accepted", False)
    return "05_retrain" if accepted else "03_train"


def by_hand(parameters: dict[str, Any], machine: dict[str, str], former: Record | None = None) -> Record:
    """Of a stage that no run began, but a person in JupyterLab, say: no run takes its results for its own.

    Args:
        parameters: what the notebook was given.
        machine: as ``Record.machine``.
        former: the record in its folder. The training of a run that was interrupted stays that run's, if the
            notebook was given the same parameters.
    """
    begun = Record(_BY_HAND, False, 0.0, parameters, _BY_HAND, _BY_HAND, machine=machine)
    if former is None or former.done or former.parameters != parameters:
        return begun
    return replace(begun, training=former.training, resumable=former.resumable)


def read(folder: Path) -> Record | None:
    """The record of a stage's folder; None where there is none, or one of another version of the kit.

    Raises:
        KitError: there is one but it cannot be read, so that nobody knows what the results were made with.
    """
    path = folder / "stage.json"
    if not os.path.exists(path):
        return None
    try:
        return Record(**files.read_json(path))
    except TypeError:
        return None
    except KitError as error:
        raise KitError(f"{error}; or delete it, and the next run moves {folder} aside") from None


def set_aside(folder: Path, stays: str = "") -> Path | None:
    """Move a stage's former results to ``previous/<stage>-<n>`` beside it; returns where, or None.

    Args:
        stays: a pattern of what stays in its place ("fold_*").
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    previous = files.make_folder(folder.parent / "previous")
    number = 1 + sum(1 for _ in previous.glob(f"{folder.name}-*"))
    while (previous / f"{folder.name}-{number}").exists():
        number += 1
    moved = previous / f"{folder.name}-{number}"
    try:
        if not stays:
            return folder.rename(moved)
        moved.mkdir()
        for path in folder.iterdir():
            if not path.match(stays):
                path.rename(moved / path.name)
        return moved
    except OSError as error:
        raise files.cannot_write(previous, error) from error


# ---------------------------------------- the table at the end of a run


@dataclass(frozen=True)
class Row:
    """One stage of a run: seconds of wall-clock time, its score if it has one, and what it left."""

    stage: str
    seconds: float
    skipped: bool
    score: str
    artefacts: str


def row(folder: Path, seconds: float, skipped: bool = False) -> Row:
    """The row of a finished stage, from the metrics.json that its notebook wrote."""
    metrics = files.read_json(folder / METRICS)
    score = metrics.get("map")
    return Row(
        folder.name,
        seconds,
        skipped,
        "" if score is None else f"{score:.3f}",
        metrics.get(IDLE) or ", ".join(metrics.get("artefacts", ())),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns."""
    head = ("stage", "time", "score", "artefacts")
    return aligned(head, [(r.stage, _time(r), r.score, r.artefacts) for r in rows])


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A head and rows as text in columns, with a line below the head."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _time(r: Row) -> str:
    minutes, seconds = divmod(round(r.seconds), 60)
    return f"{minutes}:{seconds:02d}" + (" (before)" if r.skipped else "")
