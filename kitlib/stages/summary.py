"""The table at the end of a run: what each stage took, scored and left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kitlib import files
from kitlib.stages import record


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
    metrics = files.read_json(folder / record.METRICS)
    score = metrics.get("map")
    return Row(
        folder.name,
        seconds,
        skipped,
        "" if score is None else f"{score:.3f}",
        ", ".join(metrics.get("artefacts", ())),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns."""
    head = ("stage", "time", "score", "artefacts")
    lines = [head] + [(r.stage, _time(r), r.score, r.artefacts) for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    shown = [
        "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[3]]) for line in lines
    ]
    return "\n".join([shown[0], "-" * max(map(len, shown)), *shown[1:]])


def _time(r: Row) -> str:
    minutes, seconds = divmod(round(r.seconds), 60)
    return f"{minutes}:{seconds:02d}" + (" (before)" if r.skipped else "")
