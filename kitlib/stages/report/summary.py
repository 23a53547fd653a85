"""The report of a run: what was done, with which parameters, what came of it, and what to try next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kitlib import records
from kitlib.errors import KitError
from kitlib.stages import notebooks
from kitlib.stages.notebooks import STAGES
from kitlib.stages.report import page, runs, search
from kitlib.stages.report.advice import Advice, advise, expected, gate_sentence
from kitlib.stages.report.page import Card, Link, Page, Section, Table
from kitlib.stages.report.parameters import differing, flat, shown
from kitlib.stages.report.runs import Run, StageResults
from kitlib.submission import checker

_NAME = "report.html"
_SCORED = ("03_train", "05_retrain", "06_submit")


def write(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder from what its stages have left so far, atomically.

    Raises:
        KitError: the folder is no run, one of its files is damaged, or it cannot be written.
    """
    run = runs.read(folder)
    advice = {stage.name: advise(run, stage) for stage in run.stages if stage.metrics}
    sections = [
        _next_steps(advice),
        _stages(run, advice),
        _scores(run),
        _pseudo_labels(run),
        _submission(run),
        _differing_parameters(run),
        *_figures(run),
        _all_parameters(run),
        _machines(run),
    ]
    links = [
        Link(stage.name, f"{stage.name}/{stage.name}.html")
        for stage in run.stages
        if (stage.folder / f"{stage.name}.html").is_file()
    ]
    links += [Link("search", search.NAME)] if (folder / search.NAME).is_file() else []
    whole = Page(folder.name, _lead(run), tuple(_cards(run)), tuple(filter(None, sections)), tuple(links))
    return page.write(whole, folder / _NAME)


def _lead(run: Run) -> str:
    done = sum(bool(stage.metrics) for stage in run.stages)
    parts = [
        f"profile {run.profile}" if run.profile else "",
        f"data {run.data}" if run.data else "synthetic cells",
        f"{done} of {len(STAGES)} stages done",
        runs.duration(run.seconds),
    ]
    return " · ".join(filter(None, parts))


def _cards(run: Run) -> Iterator[Card]:
    chosen, submission = run.chosen, run.stage("06_submit")
    if chosen is not None and chosen.score is not None:
        yield Card("score on validation images", f"{chosen.score:.3f}", f"cross-validated, {chosen.name}")
        tuned = expected(chosen.folder)
        if tuned is not None:
            yield Card("90 % interval", f"{tuned.low:.3f} – {tuned.high:.3f}", "to expect on new images")
    if submission is not None and submission.score is not None:
        yield Card("score on test images", f"{submission.score:.3f}", "their truth is known")
    retrained = run.stage("05_retrain")
    if retrained is not None and "gain" in retrained.metrics:
        taken = "taken" if retrained.metrics.get("accepted") else "not taken"
        yield Card("gain of retraining", f"{retrained.metrics['gain']:+.3f}", f"retrained weights {taken}")
    if submission is not None:
        images, cells = (submission.metrics.get(key, 0) for key in ("images", "cells"))
        yield Card("cells in the submission", f"{cells:,}", f"in {images:,} images")


def _next_steps(advice: dict[str, Advice]) -> Section | None:
    steps = tuple(step for each in advice.values() for step in each.steps)
    return Section("What to try next", points=steps) if steps else None


def _stages(run: Run, advice: dict[str, Advice]) -> Section:
    rows = [
        (
            stage.name,
            stage.state,
            runs.duration(stage.record.seconds) if stage.record is not None else "",
            advice[stage.name].verdict if stage.name in advice else "",
        )
        for stage in run.stages
    ]
    head = ("stage", "state", "time", "what came of it")
    return Section("Stages", tables=(Table(head, page.rows(rows), stacked=True),))


def _scores(run: Run) -> Section | None:
    found = [stage for name in _SCORED if (stage := run.stage(name)) and stage.score is not None]
    if not found:
        return None
    columns = [column for stage in found for column in _score_columns(stage)]
    types = sorted({name for _, values in columns for name in values} - {"all"})
    rows = [
        (label, *("" if (value := values.get(name)) is None else f"{value:.3f}" for _, values in columns))
        for name, label in [("all", "all images"), *((name, name) for name in types)]
    ]
    text = (
        "The competition's metric, mean over images: 03_train before pseudo labels, 05_retrain after. "
        "COCO's AP of masks is that of all instances before post-processing, at most 2,000 of an image."
    )
    head = ("", *(title for title, _ in columns))
    return Section("Scores by type", (text,), tables=(Table(head, page.rows(rows)),))


def _score_columns(stage: StageResults) -> Iterator[tuple[str, dict[str, float | None]]]:
    """The head of each column of a stage's scores, and the score of each type and of "all"."""
    where = "test images" if stage.name == "06_submit" else "validation images"
    yield f"{where}, {stage.name}", {**stage.metrics.get("by_type", {}), "all": stage.score}
    if "coco_ap" in stage.metrics:
        yield f"COCO AP, {stage.name}", stage.metrics["coco_ap"]


def _pseudo_labels(run: Run) -> Section | None:
    labelled, decision = run.stage("04_pseudolabel"), gate_sentence(run)
    if not decision and (labelled is None or labelled.idle):
        return None
    images = labelled.metrics.get("images", {}) if labelled is not None else {}
    rows = [(name, f"{number:,}") for name, number in images.items()]
    text = (f"The gate: {decision}.",) if decision else ("05_retrain has not decided on them yet.",)
    tables = (Table(("unlabelled images", "number"), page.rows(rows)),) if rows else ()
    return Section("Pseudo labels", text, tables=tables)


def _submission(run: Run) -> Section | None:
    path = run.folder / "06_submit" / "submission.csv"
    if run.stage("06_submit") is None or not path.is_file():
        return None
    try:
        problems = checker.check(path, records.read_frames(path.with_name("test.npz")), guess=False)
    except KitError as error:
        text = f"It was valid when it was written, but cannot be checked again: {error}."
        return Section("Submission", (text,))
    if problems:
        text = f"{path.name} would be rejected ({len(problems):,} faults):"
        return Section("Submission", (text,), points=tuple(problems[:5]))
    return Section("Submission", (f"{path.name} is valid: every image is there, no cells overlap.",))


def _differing_parameters(run: Run) -> Section:
    rows = [
        (stage.name, name, value, default)
        for stage in run.stages
        if stage.record is not None
        for name, (value, default) in differing(stage.record.parameters, _defaults(stage.name)).items()
    ]
    if not rows:
        return Section("Parameters", ("Every parameter has the default that its notebook gives it.",))
    head = ("stage", "parameter", "here", "default")
    return Section("Parameters that differ from the defaults", tables=(Table(head, page.rows(rows)),))


def _all_parameters(run: Run) -> Section | None:
    tables = [
        Table(
            (stage.name, "value"),
            page.rows([(n, shown(v)) for n, v in flat(stage.record.parameters).items()]),
        )
        for stage in run.stages
        if stage.record is not None
    ]
    return Section("All parameters", tables=tuple(tables), folded=True) if tables else None


def _figures(run: Run) -> Iterator[Section]:
    for stage in run.stages:
        pictures = tuple(page.picture(path) for path in stage.figures)
        if pictures:
            yield Section(f"Figures of {stage.name}", pictures=pictures)


def _machines(run: Run) -> Section | None:
    """The machines that computed, each with the stages that it computed."""
    stages: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for stage in run.stages:
        if stage.record is not None and stage.record.machine:
            stages.setdefault(tuple(stage.record.machine.items()), []).append(stage.name[:2])
    if not stages:
        return None
    machines = [dict(machine) for machine in stages]
    names = dict.fromkeys(name for machine in machines for name in machine)
    rows = [(name, *(machine.get(name, "") for machine in machines)) for name in names]
    head = ("", *(f"stages {', '.join(done)}" for done in stages.values()))
    return Section("Machine and software", tables=(Table(head, page.rows(rows)),))


def _defaults(stage: str) -> dict[str, Any]:
    return notebooks.parameters(notebooks.notebook(stage))
