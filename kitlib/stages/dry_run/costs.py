"""What a stage takes on a machine, from what a step and a prediction take; and what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kitlib.forecast import cards
from kitlib.forecast.job import Figures
from kitlib.runtime import engine, gpus, launch
from kitlib.stages.dry_run.result import StageForecast
from kitlib.stages.dry_run.work import StageWork
from kitlib.stages.notebooks import STAGES

# Of LIVECell's annotations as JSON, what its cells take as frames: once in the cache, once for the training.
_FRAMES_OF_JSON = 2 * 0.1
# Figures, executed notebooks, logs and TensorBoard's files of a stage.
_PAGES_GB = 0.05


@dataclass(frozen=True)
class Machine:
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

    def at_once(self, w: StageWork) -> int:
        """How many of a stage's trainings run side by side."""
        return engine.possible_at_once(w.asked_at_once, max(w.trainings, 1), self.devices)

    def processes_of(self, w: StageWork) -> int:
        """Processes that share a batch of a training."""
        return max(self.devices // self.at_once(w), 1)

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
        at_once, batch, prepared = self.at_once(w), w.training.images_per_batch, self._prepared(w, f)
        step = f.step_seconds * self._slower(w)
        iteration = max(step, batch / prepared)
        training_seconds = math.ceil(w.trainings / at_once) * w.iterations * iteration
        predicting = w.predictions * f.frame_seconds / self.processes
        trains = w.trainings > 0
        disk = w.frames * instances * row_bytes + w.trainings * _training_bytes(w, f)
        disk += _FRAMES_OF_JSON * json_bytes if w.stage == STAGES[1] else 0.0
        workers = w.training.workers if trains else 0
        training_gib = at_once * self.processes_of(w) * (f.process_gib + workers * f.worker_gib)
        memory = [gib for gib in (f.step_gib if trains else None, f.frame_gib) if gib is not None]
        return StageForecast(
            w.name,
            _trained(w, at_once),
            w.predictions,
            (training_seconds + predicting) / 3600,
            max(memory, default=None),
            max(training_gib, self.processes * f.process_gib),
            disk / 1e9 + _PAGES_GB,
            at_once * batch / iteration if trains else self.processes / f.frame_seconds,
            "loading" if trains and iteration > step else "GPU" if self.devices else "CPU",
            at_once * batch / iteration / f.images_per_core_second if trains else 0.0,
            tuple(self._advice(w, f, prepared)),
        )

    def _slower(self, w: StageWork) -> int:
        """How many times as long a step takes beside others as alone: on the CPU they share the cores."""
        return 1 if self.devices else self.at_once(w)

    def _prepared(self, w: StageWork, f: Figures) -> float:
        """Images that a training's workers prepare in a second; another machine has a core for each."""
        workers = max(w.training.workers, 1) * self.processes_of(w)
        cores = workers if self.card else min(workers, launch.cores() / self.at_once(w))
        return f.images_per_core_second * cores

    def _advice(self, w: StageWork, f: Figures, prepared: float) -> list[str]:
        texts = (self._step_advice(w, f), self._frame_advice(w, f), self._loading_advice(w, f, prepared))
        return [text for text in texts if text]

    def _step_advice(self, w: StageWork, f: Figures) -> str:
        """What to lower where a step takes more than the card has."""
        there = cards.named(self.card).gib if self.card else math.inf
        if not w.trainings or f.step_gib is None or f.step_gib <= there:
            return ""
        number, said = w.stage[:2], f"{w.name}: a step takes {f.step_gib:.0f} GiB of {there:.0f}"
        each = w.training.images_per_process(self.processes_of(w))
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
            f"{w.name}: a prediction takes {f.frame_gib:.0f} GiB of {there:.0f}; lower "
            "predict_config.batch, then model_options.rpn_post_nms_topk and "
            "predict_config.scales, or set predict_config.tile"
        )

    def _loading_advice(self, w: StageWork, f: Figures, prepared: float) -> str:
        """How many workers keep up with the device."""
        wanted = w.training.images_per_batch / f.step_seconds
        if not w.trainings or wanted <= prepared or not self.devices:
            return ""
        workers = math.ceil(wanted / f.images_per_core_second / self.processes_of(w))
        return (
            f"{w.name}: {w.training.workers} workers prepare {prepared:.1f} images/s of {wanted:.1f}; "
            f"--set {w.stage[:2]}.workers={workers}"
        )


def _trained(w: StageWork, at_once: int) -> str:
    times = f"{w.trainings} x " if w.trainings > 1 else ""
    beside = f", {at_once} at once" if at_once > 1 else ""
    return f"{times}{w.iterations:,} x {w.training.images_per_batch}{beside}" if w.trainings else ""


def _training_bytes(w: StageWork, f: Figures) -> float:
    """Weights and checkpoints that a training leaves.

    The last weights, the best ones where frames are evaluated, and two checkpoints: of the weights, the
    average of them where there is one, and the optimiser's state.
    """
    averages = 1 if w.training.ema_decay else 0
    checkpoint = (1 + averages) * f.weights_bytes + w.training.optim.moments * f.trained_bytes
    return (2 if w.predictions else 1) * f.weights_bytes + 2 * checkpoint
