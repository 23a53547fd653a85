"""Runs beside each other: parameters that differ, scores, and whether their difference is more than noise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kitlib import metric, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.stages import record, trainings
from kitlib.stages.report import page, runs
from kitlib.stages.report.page import Card, Page, Section, Table
from kitlib.stages.report.parameters import differing
from kitlib.stages.report.runs import Run, StageResults

_ALL = "all images"


@dataclass(frozen=True)
class _Judged:
    """A run's validation images as its best weights predict them.

    Attributes:
        label: what the run is called beside the others.
        stage: the stage whose predictions these are.
        truth: the images with their annotated cells, by id.
        found: the same as predicted after post-processing, by id.
    """

    label: str
    run: Run
    stage: StageResults
    truth: dict[str, Frame]
    found: dict[str, Frame]

    @property
    def folds(self) -> list[Path]:
        return sorted(path for path in self.stage.folder.glob("fold_*") if path.is_dir())


@dataclass(frozen=True)
class Interval:
    """A mean over images with the ends of its 90 % bootstrap interval."""

    mean: float
    low: float
    high: float
    images: int

    def text(self, form: str = ".3f") -> str:
        if self.images == 1:
            return f"{self.mean:{form}} (one image)"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class Comparison:
    """Runs on the validation images that they have in common.

    Attributes:
        labels: what the runs are called, the first is the one that the others are compared with.
        stages: the stage of each whose predictions were scored.
        scores: of each run, by type and for ``"all images"``.
        gains: of each run but the first, what it has over the first, paired by image.
        images: how many are in common.
        left_out: how many of each run are not.
    """

    labels: tuple[str, ...]
    stages: tuple[str, ...]
    scores: tuple[dict[str, Interval], ...]
    gains: tuple[dict[str, Interval], ...]
    images: int
    left_out: tuple[int, ...]

    @property
    def sentences(self) -> list[str]:
        """What the figures say."""
        said = [f"{self.images:,} validation images are in common, annotated alike."]
        numbers = zip(self.left_out, self.labels, strict=True)
        left = ", ".join(f"{number:,} of {label}" for number, label in numbers if number)
        if left:
            said.append(f"Left out, as not all runs have them: {left}.")
        first, *others = self.labels
        return said + [_verdict(first, *pair) for pair in zip(others, self.gains, strict=True)]

    def table(self) -> Table:
        """A row a type; the scores of each run, then the gains over the first."""
        first, *others = self.labels
        head = ("mean and 90 % interval", *self.labels, *(f"{label} - {first}" for label in others))
        rows = [
            (name, *(s[name].text() for s in self.scores), *(g[name].text("+.3f") for g in self.gains))
            for name in self.scores[0]
        ]
        return Table(head, page.rows(rows), stacked=True)


def compare(folders: Sequence[Path]) -> tuple[Comparison, Path]:
    """Compare runs, and write a page on it beside the first run's folder.

    Returns:
        The comparison, and the path of the page.

    Raises:
        KitError: fewer than two runs, a run without validated predictions, or no image in common.
    """
    if len(folders) < 2:
        raise KitError("name at least two runs to compare, such as outputs/demo outputs/mine")
    judged = [_judge(folder, label) for folder, label in zip(folders, _labels(folders), strict=True)]
    found = _compare(judged)
    names = "_".join(label.replace("/", "-") for label in found.labels)
    return found, page.write(_page(judged, found), folders[0].parent / f"compare_{names}.html")


def text(table: Table) -> str:
    """A table in aligned columns."""
    return record.aligned(table.head, table.rows)


def parameters(judged: Sequence[Run]) -> Table:
    """The parameters that differ between the first run and any other, as each has them."""
    rows = [
        row
        for stage in judged[0].stages
        if stage.record is not None
        for row in _differing(stage.name, stage.record.parameters, judged[1:])
    ]
    return Table(("parameter", *(run.folder.name for run in judged)), page.rows(rows))


def _differing(stage: str, first: dict[str, Any], others: Sequence[Run]) -> Iterator[list[str]]:
    found = [_parameters(run, stage) for run in others]
    pairs = [differing(first, values) if values is not None else {} for values in found]
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        here = next(pair[name][0] for pair in pairs if name in pair)
        yield [f"{stage}.{name}", here, *(pair[name][1] if name in pair else here for pair in pairs)]


def _parameters(run: Run, stage: str) -> dict[str, Any] | None:
    found = run.stage(stage)
    return found.record.parameters if found is not None and found.record is not None else None


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; where two are the same, their paths from the folder that all share."""
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([folder.parent for folder in folders])
    labels = [folder.relative_to(shared).as_posix() for folder in folders]
    if len(set(labels)) < len(labels):
        raise KitError(f"{labels[0]} is named twice; name different runs")
    return labels


def _judge(folder: Path, label: str) -> _Judged:
    """The validation images of a run's best weights: annotated and predicted."""
    run = runs.read(folder)
    stage, missing = run.chosen, "out_of_fold.csv"
    if stage is None or not (stage.folder / missing).is_file():
        raise KitError(f"{folder} has no {missing} of 03_train to compare; run that stage first")
    trained = {Path(name).parts[0] for name in stage.metrics.get("weights", ())}
    files = [p for p in sorted(folder.glob("03_train/fold_*/val.npz")) if p.parent.name in trained]
    truth = {frame.id: frame for path in files for frame in records.read_frames(path)}
    if not truth:
        raise KitError(f"{folder}/03_train holds no fold_*/val.npz with the true cells; run 03_train again")
    return _Judged(label, run, stage, truth, {f.id: f for f in tables.read_cells(stage.folder / missing)})


def _compare(judged: Sequence[_Judged]) -> Comparison:
    first = judged[0]
    common = [name for name in first.truth if all(_are_alike(name, first, other) for other in judged)]
    if not common:
        names = ", ".join(each.label for each in judged)
        raise KitError(
            f"{names} share no validation image with the same cells; compare runs on the same data"
        )
    by_image = [_scores(each, common) for each in judged]
    of_type = {name: first.truth[name].category or "unknown" for name in common}
    return Comparison(
        labels=tuple(each.label for each in judged),
        stages=tuple(each.stage.name for each in judged),
        scores=tuple(_by_type(values, of_type) for values in by_image),
        gains=tuple(_by_type(values - by_image[0], of_type) for values in by_image[1:]),
        images=len(common),
        left_out=tuple(len(each.truth) - len(common) for each in judged),
    )


def _are_alike(name: str, first: _Judged, other: _Judged) -> bool:
    """Whether two runs have a validation image in common, of one size and with the same true cells."""
    return name in other.truth and _annotation(first.truth[name]) == _annotation(other.truth[name])


def _annotation(frame: Frame) -> tuple[int, int, list[str]]:
    return frame.height, frame.width, sorted(str(cell.mask) for cell in frame.cells)


def _scores(judged: _Judged, names: Sequence[str]) -> pd.Series:
    """The metric of each image; one without predictions has no cells there."""
    predicted = [judged.found[name] for name in names if name in judged.found]
    return pd.Series(metric.score([judged.truth[name] for name in names], predicted).by_image)[list(names)]


def _by_type(values: pd.Series, of_type: dict[str, str]) -> dict[str, Interval]:
    """Means and intervals for all images, then by type."""
    kinds = np.array([of_type[name] for name in values.index])
    numbers = values.to_numpy()
    parts = {_ALL: numbers, **{kind: numbers[kinds == kind] for kind in sorted(set(kinds))}}
    return {name: Interval(float(np.mean(v)), *metric.interval(v), len(v)) for name, v in parts.items()}


def _verdict(first: str, label: str, gains: dict[str, Interval]) -> str:
    """Whether a run differs from the first by more than the choice of images explains."""
    gain = gains[_ALL]
    if gain.low == gain.high == 0:
        return f"{label} and {first} score the same on every image."
    if gain.images == 1:
        return f"{label} scores {gain.mean:+.3f} over {first} on a single image, which may be chance."
    if gain.low <= 0 <= gain.high:
        return (
            f"{label} scores {gain.text('+.3f')} over {first}: no more than noise, as the interval holds 0."
        )
    return f"{label} scores {gain.text('+.3f')} over {first}: more than noise, as the interval leaves 0 out."


def _page(judged: Sequence[_Judged], found: Comparison) -> Page:
    cards = tuple(
        Card(label, scores[_ALL].text().partition(" ")[0], f"{stage}, {found.images} images")
        for label, stage, scores in zip(found.labels, found.stages, found.scores, strict=True)
    )
    differ = parameters([each.run for each in judged])
    note = (
        "The competition's metric on the validation images, each predicted by a model that never saw it. The "
        "intervals are bootstrapped over images; a difference is taken image by image first, as the gate of "
        "05_retrain does, so that images that are hard for all runs do not blur it."
    )
    sections = [
        Section("Is the difference more than noise?", points=tuple(found.sentences)),
        Section("Scores by type", (note,), tables=(found.table(),)),
        Section("Parameters that differ", tables=(differ,))
        if differ.rows
        else Section("Parameters", ("No parameter of a stage that both ran differs.",)),
        *_curves(judged),
    ]
    return Page(" and ".join(found.labels), "Runs compared", cards, tuple(sections))


def _curves(judged: Sequence[_Judged]) -> Iterator[Section]:
    # Imported here, as matplotlib takes a second.
    from kitlib.viz import curves as plots

    titles = {f"{each.label}, {each.stage.name}": each.folds[0] for each in judged if each.folds}
    found = {title: trainings.curves(folder) for title, folder in titles.items()}
    if curves := {title: table for title, table in found.items() if len(table)}:
        figure = plots.losses_of_runs(curves)
        text = "Of the first fold of each run; faint: each iteration, strong: the running median."
        yield Section("Losses", (text,), pictures=(page.drawn("total loss and mask loss", figure),))
