"""``python -m kitlib.forecast FOLDER NAME ...``: the process that ``job.run`` starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kitlib import config as configs
from kitlib.forecast import cards, count, job, measure
from kitlib.forecast.job import Figures, Forecast
from kitlib.predict.views import views
from kitlib.records import Frame, read_frames
from kitlib.runtime import launch
from kitlib.train.config import TrainConfig
from kitlib.train.processes import Processes

# On the CPU a step takes as many times as long as there are images: of more than these it is multiplied.
_ON_CPU = 2
# Host memory of a process that has CUDA's libraries loaded, beside what it has without.
_CUDA_HOST_GIB = 2.5


def main() -> None:
    """Take the figures of the trainings that the folder describes."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    given = configs.load(Forecast, folder / job.JOB)
    trainings = {name: configs.load(TrainConfig, folder / f"{name}.yaml") for name in names}
    device = torch.device("cuda" if launch.gpus_asked() else "cpu")
    taking = _Taking(given, read_frames(given.frames), device)
    job.write(folder, {name: taking.figures(name, training) for name, training in trainings.items()})


class _Taking:
    """Takes figures, the same ones once."""

    def __init__(self, given: Forecast, frames: Sequence[Frame], device: torch.device) -> None:
        self.given, self.frames, self.device = given, frames, device
        self.card = cards.named(given.card) if given.card else None
        self._known: dict[str, Any] = {}

    def figures(self, name: str, config: TrainConfig) -> Figures:
        """Of one training and of a prediction by its model."""
        detections = self.given.detections[name]
        trained = replace(config, predict=type(config.predict)())
        loading = self._once("loading", trained, lambda: measure.loading(trained, self.frames))
        processes = self.given.processes[name]
        step, least = self._once(f"step {processes}", trained, lambda: self._step(trained, processes))
        alike = TrainConfig(out=config.out, train="", categories=config.categories, model=config.model)
        predicted = replace(alike, predict=config.predict)
        frame = self._once(f"frame {detections}", predicted, lambda: self._frame(predicted, detections))
        sizes = self._once("sizes", config.model, lambda: count.sizes(config.model))
        resident = Processes(0, 1, torch.device("cpu")).memory()["host_gib"]
        return Figures(
            step.seconds,
            step.gib,
            frame.seconds,
            frame.gib,
            loading.images_per_second,
            loading.gib,
            resident + (_CUDA_HOST_GIB if self.card else 0),
            sizes.weights,
            sizes.trained,
            least,
        )

    def _once(self, kind: str, config: Any, take: Callable[[], Any]) -> Any:
        key = f"{kind} {configs.dumps(config)}"
        if key not in self._known:
            self._known[key] = take()
        return self._known[key]

    def _step(self, config: TrainConfig, processes: int) -> tuple[measure.Measured, float | None]:
        """The step of one of some processes, and the memory that a GPU would need at least."""
        each = config.images_per_process(processes) // config.accumulate
        if self.card is None:
            return self._measured_step(config, each), None
        (low, high), copies = config.augment.scale, _copies(config)
        middle = count.training(config.model, each, self._size(config, (low + high) / 2), config.amp, copies)
        largest, single = (
            count.training(config.model, images, self._size(config, high), config.amp, copies)
            for images in (each, 1)
        )
        seconds = config.accumulate * cards.seconds(
            middle.operations, self.card, config.amp != "off", "training"
        )
        return measure.Measured(seconds, largest.gib), single.gib

    def _measured_step(self, config: TrainConfig, each: int) -> measure.Measured:
        images = each if self.device.type == "cuda" else min(each, _ON_CPU)
        whole = replace(config, accumulate=config.accumulate if images == each else 1)
        found = measure.step(whole, self.frames, self.device, images)
        times = each * config.accumulate / (images * whole.accumulate)
        return found._replace(seconds=found.seconds * times)

    def _frame(self, config: TrainConfig, detections: int) -> measure.Measured:
        if self.card is None:
            return measure.prediction(config, self._middle_frame(), detections, self.device)
        frame, predict = self._middle_frame(), config.predict
        looks = views(predict, frame.height, frame.width)
        half, seconds, gib = predict.amp != "off", 0.0, 0.0
        for shape in {look.shape for look in looks}:
            number = sum(look.shape == shape for look in looks)
            together = min(predict.batch, number)
            cost = count.prediction(config.model, together, shape, detections, predict.amp)
            seconds += number / together * cards.seconds(cost.operations, self.card, half, "prediction")
            gib = max(gib, cost.gib)
        return measure.Measured(seconds, gib)

    def _size(self, config: TrainConfig, scale: float) -> tuple[int, int]:
        """Height and width of the training images at a scale."""
        frame = self._middle_frame()
        whole = round(frame.height * scale), round(frame.width * scale)
        return config.augment.crop or whole

    def _middle_frame(self) -> Frame:
        """The frame of the median area."""
        return sorted(self.frames, key=lambda frame: frame.height * frame.width)[len(self.frames) // 2]


def _copies(config: TrainConfig) -> int:
    """Tensors that training keeps beside each trained weight: the optimiser's, and the moving average."""
    return config.optim.moments + (1 if config.ema_decay else 0)


if __name__ == "__main__":
    launch.child(main)
