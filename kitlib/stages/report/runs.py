"""The runs in a folder: which of their stages are done, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.errors import KitError
from kitlib.stages import record
from kitlib.stages.notebooks import STAGES
from kitlib.stages.record import METRICS, Record


@dataclass(frozen=True)
class StageResults:
    """What one stage of a run left.

    Attributes:
        folder: RUN/<stage>.
        metrics: what its notebook measured; empty while it is not finished.
        record: what it was run with; None where another version of the kit ran it.
    """

    folder: Path
    metrics: dict[str, Any]
    record: Record | None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def score(self) -> float | None:
        """The competition's metric, of a stage that measured it."""
        return self.metrics.get("map")

    @property
    def idle(self) -> str:
        """Why the stage had nothing to do; empty where it had."""
        return self.metrics.get(record.IDLE, "")

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.idle:
            return "nothing to do"
        if self.metrics and self.record is not None and not self.record.done:
            return "runs again, or stopped"
        if self.metrics:
            return "done"
        return "runs, or stopped"

    @property
    def figures(self) -> list[Path]:
        """Its pictures in the order in which they were drawn."""
        return sorted(
            self.folder.glob("figures/[!.]*.png"), key=lambda path: (path.stat().st_mtime, path.name)
        )


@dataclass(frozen=True)
class Run:
    """A run's folder, and those of its stages that were begun, in order."""

    folder: Path
    stages: tuple[StageResults, ...]

    def stage(self, name: str) -> StageResults | None:
        """A stage by its name, if it is finished."""
        return next((stage for stage in self.stages if stage.name == name and stage.metrics), None)

    @property
    def records(self) -> list[Record]:
        return [stage.record for stage in self.stages if stage.record is not None]

    @property
    def profile(self) -> str:
        """Of the stage that ran last; empty where that is not known."""
        return next((each.profile for each in reversed(self.records) if each.profile), "")

    @property
    def data(self) -> str:
        """The folder of the data; empty where that is not known."""
        return next((each.parameters["data"] for each in self.records if each.parameters.get("data")), "")

    @property
    def seconds(self) -> float:
        """Of all finished stages."""
        return sum(each.seconds for each in self.records)

    @property
    def chosen(self) -> StageResults | None:
        """The finished stage whose weights are the best known."""
        return self.stage(record.chosen(self.folder))

    def score(self, stage: str) -> str:
        """A stage's score as text; empty where it has none."""
        found = self.stage(stage)
        return "" if found is None or found.score is None else f"{found.score:.3f}"


def read(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        KitError: there is none, or one of its files is damaged.
    """
    stages = tuple(_stages(folder))
    if not stages:
        raise KitError(f"{folder} is not a run's folder; name one such as outputs/demo")
    return Run(folder, stages)


def _stages(folder: Path) -> Iterator[StageResults]:
    for name in STAGES:
        found, has_results = record.read(folder / name), record.has_results(folder / name)
        if found is not None or has_results:
            yield StageResults(folder / name, _metrics(folder / name) if has_results else {}, found)


def _metrics(folder: Path) -> dict[str, Any]:
    values = files.read_json(folder / METRICS)
    if not isinstance(values, dict):
        raise KitError(f"{folder / METRICS} must hold names and values; run {folder.name} again")
    return values


def is_run(folder: Path) -> bool:
    """Whether a folder holds results of a stage."""
    return any((folder / stage / name).is_file() for stage in STAGES for name in (METRICS, "stage.json"))


def table(outputs: Path) -> str:
    """The runs in a folder as text in columns: stages done, scores, profile, data, time.

    Raises:
        KitError: the folder holds no run.
    """
    folders = [path for path in sorted(outputs.iterdir()) if is_run(path)] if outputs.is_dir() else []
    if not folders:
        raise KitError(f"{outputs} holds no run; make one with ./run_all.sh, or name another folder")
    head = ("run", "stages", "03", "05", "test", "time", "profile", "data")
    rows: list[Sequence[str]] = []
    damaged = []
    for folder in folders:
        try:
            rows.append(_row(read(folder)))
        except KitError as error:
            damaged.append(f"{folder.name}: {error}")
    return "\n".join([record.aligned(head, rows), *damaged])


def _row(run: Run) -> tuple[str, ...]:
    done = [stage.name[:2] for stage in run.stages if stage.metrics]
    in_a_row = len(done) > 1 and done == [name[:2] for name in STAGES[: len(done)]]
    stages = f"{done[0]}-{done[-1]}" if in_a_row else " ".join(done)
    scores = [run.score(stage) for stage in ("03_train", "05_retrain", "06_submit")]
    return (run.folder.name, stages or "none", *scores, duration(run.seconds), run.profile, run.data)


def duration(seconds: float) -> str:
    """A time in words: "48 s", "5 min 40 s", "3 h 05 min"; empty for none."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s" if rest else ""
