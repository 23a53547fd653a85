"""What the stages of a run would take on this machine, or on one with another card."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from kitlib.runtime import gpus, launch
from kitlib.stages import parameters
from kitlib.stages.dry_run import checks, work
from kitlib.stages.dry_run.checks import Check
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
# Of LIVECell's annotations as JSON, what its cells take as frames: once in the cache, once for the training.
_FRAMES_OF_JSON = 2 * 0.1
# Figures, executed notebooks, logs and TensorBoard's files of a stage.
_PAGES_GB = 0.05


@dataclass(frozen=True)
class StageForecast:
    """What a stage takes.

    Attributes:
        stage: "03_train".
        trained: trainings x iterations x images of a batch; "" where it does not train.
        predicted: predictions of a frame by a model.
        hours: of the stage.
        gpu_gib: of each GPU's memory at its highest, None without one.
        host_gib: of the host's memory, an upper bound.
        disk_gb: of what it leaves.
        images_per_second: trained on by all processes, or predicted where it does not train.
        limit: what the stage waits for: "GPU", "CPU", or "loading" of images.
        cores: that preparing the images keeps busy.
        advice: what to change where it does not fit, or where images come too slowly.
    """

    stage: str
    trained: str
    predicted: int
    hours: float
    gpu_gib: float | None
    host_gib: float
    disk_gb: float
    images_per_second: float
    limit: str
    cores: float
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunForecast:
    """What a whole run takes.

    Attributes:
        title: profile, devices and data, as sentences.
        checks: what a run needs of the machine.
        stages: those that compute.
        calculated_for: the card that times and GPU memory are calculated for; "": they were measured.
    """

    title: tuple[str, ...]
    checks: tuple[Check, ...]
    stages: tuple[StageForecast, ...]
    calculated_for: str

    @property
    def fine(self) -> bool:
        """Whether nothing stands in the way of the run."""
        return all(check.fine for check in self.checks) and not any(stage.advice for stage in self.stages)


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
    card = card or _missing_card(plan, computing)
    reading = parameters.read("03_train", plan.parameters["03_train"]).reading
    found = datasets.open_folder(data, reading)
    if not found.labelled:
        raise KitError(f"{data} has no annotated images, so there is nothing to train on; correct --data")
    with tempfile.TemporaryDirectory() as folder:
        sample = _sample(found, reading, Path(folder), own)
        splits = livecell.splits_in(data)
        works = work.of_stages(plan, found, computing, sample if own else (), bool(splits))
        machine = _Machine(_device_count(plan, computing, card), card)
        figures, failures = _figures(works, sample, machine, Path(folder))
    size = _row_bytes(sample), sum(livecell.annotations(data, split).stat().st_size for split in splits)
    done = tuple(machine.stage(w, figures[w.stage], _instances(w, sample), *size) for w in works if figures)
    return RunForecast(
        _title(plan, data, found, machine),
        (
            checks.software(),
            Check("data", f"{found.layout}; {len(found.findings)} faults, which 01_eda lists"),
            checks.earlier(plan, out, stages),
            checks.device(plan, computing, card),
            checks.disk(out, sum(stage.disk_gb for stage in done)),
            checks.memory(max((stage.host_gib for stage in done), default=0.0), bool(card)),
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
    works: Sequence[StageWork], sample: Sequence[Frame], machine: _Machine, folder: Path
) -> tuple[dict[str, Figures], list[Check]]:
    """The figures of each stage; where they cannot be taken, why."""
    frames = str(records.write_frames(folder / "frames.npz", list(sample)))
    detections = {w.stage: _instances(w, sample) for w in works}
    asked = {w.stage: w.training for w in works}
    given = job.Forecast(frames, detections, machine.card, max(machine.devices, 1))
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


def _title(plan: Plan, data: Path, found: Dataset, machine: _Machine) -> tuple[str, ...]:
    where = f"{machine.devices} x {machine.card}" if machine.card else machine.described()
    counts = (
        f"{len(found.labelled):,} labelled, {len(found.unlabelled):,} unlabelled, {len(found.test):,} test"
    )
    return f"profile {plan.profile} on {where}", f"data {data}: {counts} images"


@dataclass(frozen=True)
class _Machine:
    """Where the run computes.

    Attributes:
        devices: GPUs; 0: the CPU.
        card: their name where they are not here, but calculated for.
    """

    devices: int
    card: str

    @property
    def processes(self) -> int:
        return max(self.devices, 1)

    def described(self) -> str:
        """The device that is here, in words."""
        found = gpus.survey().gpus
        return f"{self.devices} x {found[0].name}" if self.devices else f"{launch.cores()} cores of the CPU"

    def stage(
        self, w: StageWork, f: Figures, instances: int, row_bytes: float, json_bytes: float
    ) -> StageForecast:
        """What a stage takes.

        Args:
            w: what it does.
            f: what a step and a frame take.
            instances: of a frame.
            row_bytes: of an instance in predictions.csv.
            json_bytes: of LIVECell's annotations.
        """
        batch, prepared = w.training.images_per_batch, self._prepared(w, f)
        iteration = max(f.step_seconds, batch / prepared)
        predicting = w.predictions * f.frame_seconds / self.processes
        trains = w.trainings > 0
        disk = w.frames * instances * row_bytes + w.trainings * _training_bytes(w, f)
        disk += _FRAMES_OF_JSON * json_bytes if w.stage == STAGES[1] else 0.0
        workers = w.training.workers if trains else 0
        memory = [gib for gib in (f.step_gib if trains else None, f.frame_gib) if gib is not None]
        return StageForecast(
            w.stage,
            _trained(w),
            w.predictions,
            (w.trainings * w.iterations * iteration + predicting) / 3600,
            max(memory, default=None),
            self.processes * (f.process_gib + workers * f.worker_gib),
            disk / 1e9 + _PAGES_GB,
            batch / iteration if trains else self.processes / f.frame_seconds,
            "loading" if trains and iteration > f.step_seconds else "GPU" if self.devices else "CPU",
            batch / iteration / f.images_per_core_second if trains else 0.0,
            tuple(self._advice(w, f, prepared)),
        )

    def _prepared(self, w: StageWork, f: Figures) -> float:
        """Images that all workers prepare in a second; another machine is taken to have a core for each."""
        workers = max(w.training.workers, 1) * self.processes
        return f.images_per_core_second * (workers if self.card else min(workers, launch.cores()))

    def _advice(self, w: StageWork, f: Figures, prepared: float) -> list[str]:
        texts = (self._step_advice(w, f), self._frame_advice(w, f), self._loading_advice(w, f, prepared))
        return [text for text in texts if text]

    def _step_advice(self, w: StageWork, f: Figures) -> str:
        """What to lower where a step takes more than the card has."""
        there = cards.named(self.card).gib if self.card else math.inf
        if not w.trainings or f.step_gib is None or f.step_gib <= there:
            return ""
        number, said = w.stage[:2], f"{w.stage}: a step takes {f.step_gib:.0f} GiB of {there:.0f}"
        each = w.training.images_per_process(self.processes)
        at_once = each // w.training.accumulate
        least = f.least_gib or f.step_gib
        an_image = (f.step_gib - least) / max(at_once - 1, 1)
        fitting = [
            n for n in range(1, each + 1) if each % n == 0 and least + (each // n - 1) * an_image <= there
        ]
        if least <= there and fitting:
            return f"{said}; --set {number}.accumulate={fitting[0]} sends the batch in pieces that fit"
        return (
            f"{said}, and one image alone {least:.0f}; lower "
            f"{number}.augment.crop or {number}.augment.scale, then "
            "model_options.roi_batch, or take a smaller preset"
        )

    def _frame_advice(self, w: StageWork, f: Figures) -> str:
        """What to lower where a prediction takes more than the card has."""
        there = cards.named(self.card).gib if self.card else math.inf
        if not w.predictions or f.frame_gib is None or f.frame_gib <= there:
            return ""
        return (
            f"{w.stage}: a prediction takes {f.frame_gib:.0f} GiB of {there:.0f}; lower "
            "predict_config.batch, then model_options.rpn_post_nms_topk and "
            "predict_config.scales, or set predict_config.tile"
        )

    def _loading_advice(self, w: StageWork, f: Figures, prepared: float) -> str:
        """How many workers keep up with the device."""
        wanted = w.training.images_per_batch / f.step_seconds
        if not w.trainings or wanted <= prepared or not self.devices:
            return ""
        workers = math.ceil(wanted / f.images_per_core_second / self.processes)
        return (
            f"{w.stage}: {w.training.workers} workers prepare {prepared:.1f} images/s of {wanted:.1f}; "
            f"--set {w.stage[:2]}.workers={workers}"
        )


def _trained(w: StageWork) -> str:
    times = f"{w.trainings} x " if w.trainings > 1 else ""
    return f"{times}{w.iterations:,} x {w.training.images_per_batch}" if w.trainings else ""


def _training_bytes(w: StageWork, f: Figures) -> float:
    """Weights and checkpoints that a training leaves.

    The last weights, the best ones where frames are evaluated, and two checkpoints: of the weights, the
    average of them where there is one, and the optimiser's state.
    """
    averages = 1 if w.training.ema_decay else 0
    moments = 2 if w.training.optim.name == "adamw" else 1
    checkpoint = (1 + averages) * f.weights_bytes + moments * f.trained_bytes
    return (2 if w.predictions else 1) * f.weights_bytes + 2 * checkpoint
