"""What the stages of a run would take on this machine, or on one with another card."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kitlib import records
from kitlib.data import dataset as datasets
from kitlib.data import livecell
from kitlib.data.config import ReadingConfig
from kitlib.data.dataset import Dataset
from kitlib.errors import KitError
from kitlib.forecast import cards, job
from kitlib.forecast.job import Figures
from kitlib.masks import rle
from kitlib.records import Frame
from kitlib.runtime import gpus
from kitlib.stages import parameters
from kitlib.stages.dry_run import checks, work
from kitlib.stages.dry_run.costs import Machine
from kitlib.stages.dry_run.result import Check, RunForecast
from kitlib.stages.dry_run.work import StageWork
from kitlib.stages.notebooks import STAGES
from kitlib.stages.profiles import Plan

DEFAULT_CARD = "A100"
# Frames that are read for the measurements.
_SAMPLE = 24
# Instances of a frame for each of its true cells: at the usual lowest score of 0.05 about twice as many.
_FOUND = 2
# A row of predictions.csv without its mask: id, type, scores.
_ROW_BYTES = 60


def forecast(
    plan: Plan, data: Path, out: Path, stages: Sequence[str] = STAGES, card: str = "", own: bool = False
) -> RunForecast:
    """Check the machine and the data, and measure or calculate what each stage takes.

    Args:
        plan: the parameters of the run.
        data: the folder of the data.
        out: the folder of the run, in which nothing is written.
        stages: that would run.
        card: a name in ``kitlib.forecast.cards`` to calculate for; "": the device that is here is measured,
            or ``DEFAULT_CARD`` taken where a profile made for GPUs finds none.
        own: the data are the user's own.

    Raises:
        KitError: data that cannot be read, or an unknown card.
    """
    computing = [stage for stage in stages if "gpus" in plan.parameters[stage]]
    named, card = card, card or _missing_card(plan, computing)
    if card:
        cards.named(card)
    reading = parameters.read("03_train", plan.parameters["03_train"]).reading
    found = datasets.open_folder(data, reading)
    if not found.labelled:
        raise KitError(f"{data} has no annotated images, so there is nothing to train on; correct --data")
    with tempfile.TemporaryDirectory() as folder:
        sample = _sample(found, reading, Path(folder), own)
        splits = livecell.splits_in(data)
        works = work.of_stages(plan, found, computing, sample if own else (), bool(splits))
        machine = Machine(_device_count(plan, computing, card), card)
        figures, failures = _figures(works, sample, machine, Path(folder))
    size = _row_bytes(sample), sum(livecell.annotations_file(data, split).stat().st_size for split in splits)
    done = tuple(machine.stage(w, figures[w.name], _instances(w, sample), *size) for w in works if figures)
    return RunForecast(
        _title(plan, data, found, machine),
        (
            checks.software(),
            Check("data", f"{found.layout}; {len(found.findings)} faults, which 01_eda lists"),
            checks.earlier(plan, out, stages),
            checks.device(plan, computing, named),
            checks.disk(out, sum(stage.disk_gb for stage in done)),
            checks.memory(max((stage.host_gib for stage in done), default=0.0), bool(named)),
            checks.shared_memory(machine.devices),
            *failures,
        ),
        done,
        card,
    )


def _missing_card(plan: Plan, computing: Sequence[str]) -> str:
    """The card to calculate for where a profile made for GPUs finds none, and none was declined."""
    declined = all(plan.parameters[stage]["gpus"] == 0 for stage in computing)
    return DEFAULT_CARD if plan.device == "gpu" and not declined and not gpus.survey().gpus else ""


def _device_count(plan: Plan, computing: Sequence[str], card: str) -> int:
    """GPUs that the run uses; 0: the CPU."""
    asked = max((plan.parameters[stage]["gpus"] for stage in computing), default=0)
    there = 1 if card else len(gpus.survey().gpus)
    return there if asked < 0 else asked if card or there else 0


def _sample(found: Dataset, reading: ReadingConfig, folder: Path, own: bool) -> list[Frame]:
    """Some of the annotated frames, spread over all, whose images can be read at once."""
    step = max(len(found.labelled) // _SAMPLE, 1)
    chosen = replace(found, labelled=found.labelled[::step][:_SAMPLE], unlabelled=[], test=[], truth=[])
    return datasets.prepared(chosen, reading, folder / "images").labelled if own else chosen.labelled


def _figures(
    works: Sequence[StageWork], sample: Sequence[Frame], machine: Machine, folder: Path
) -> tuple[dict[str, Figures], list[Check]]:
    """The figures of each stage; where they cannot be taken, why."""
    if not works:
        return {}, []
    frames = str(records.write_frames(folder / "frames.npz", list(sample)))
    detections = {w.name: _instances(w, sample) for w in works}
    asked = {w.name: w.training for w in works}
    processes = {w.name: machine.processes_of(w) for w in works}
    given = job.Forecast(frames, detections, processes, machine.card)
    try:
        return job.run(given, asked, folder, gpus=1 if machine.devices and not machine.card else 0), []
    except KitError as error:
        return {}, [Check("a step", str(error), fine=False)]


def _instances(w: StageWork, sample: Sequence[Frame]) -> int:
    """Instances that a frame has, before post-processing."""
    mean = sum(len(frame.cells) for frame in sample) / len(sample)
    return max(min(round(_FOUND * mean), w.training.predict.max_cells), 1)


def _row_bytes(sample: Sequence[Frame]) -> float:
    """Bytes of a predicted cell in predictions.csv."""
    texts = [text for frame in sample for text in rle.to_texts([c.mask for c in frame.cells])]
    return _ROW_BYTES + sum(map(len, texts)) / max(len(texts), 1)


def _title(plan: Plan, data: Path, found: Dataset, machine: Machine) -> tuple[str, ...]:
    where = f"{machine.devices} x {machine.card}" if machine.card else machine.described()
    counts = (
        f"{len(found.labelled):,} labelled, {len(found.unlabelled):,} unlabelled, {len(found.test):,} test"
    )
    return f"profile {plan.profile} on {where}", f"data {data}", f"{counts} images"
