"""The figures of some trainings and predictions, taken in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kitlib import config as configs
from kitlib import files
from kitlib.config import PositiveCount, configuration
from kitlib.runtime import launch
from kitlib.train.config import TrainConfig

JOB, FIGURES = "forecast.yaml", "forecast.json"


@configuration
class Forecast:
    """What the child process is given.

    Attributes are the fields below; each training is a ``NAME.yaml`` beside this file.
    """

    frames: str
    """Frames to train on and to predict, a file of ``records.write_frames``."""
    detections: dict[str, PositiveCount]
    """By training, the cells of a frame that get masks."""
    processes: dict[str, PositiveCount]
    """By training, how many share a batch, each with one GPU, or one on the CPU."""
    card: str = ""
    """A name in ``kitlib.forecast.cards``, to calculate for; "": measure on the device that is here."""


@dataclass(frozen=True)
class Figures:
    """What a training takes, and the prediction of a frame by its model.

    Attributes:
        step_seconds: of a process, for its share of a batch; preparing the images not counted.
        step_gib: of a GPU's memory, None on the CPU.
        frame_seconds: for a frame in all its views, by one model.
        frame_gib: of a GPU's memory, None on the CPU.
        images_per_core_second: images that a core prepares.
        worker_gib: what preparing images adds to a process.
        process_gib: of the host's memory, a process that trains.
        weights_bytes: of the model.
        trained_bytes: of these, what is trained.
        least_gib: of a GPU's memory, if each image went through the model alone; None on the CPU.
    """

    step_seconds: float
    step_gib: float | None
    frame_seconds: float
    frame_gib: float | None
    images_per_core_second: float
    worker_gib: float
    process_gib: float
    weights_bytes: int
    trained_bytes: int
    least_gib: float | None


def run(job: Forecast, trainings: Mapping[str, TrainConfig], folder: Path, gpus: int) -> dict[str, Figures]:
    """The figures of each training, by name.

    Args:
        job: what all have in common.
        trainings: how each trains and how its model predicts; out, data and weights do not count.
        folder: for what the child process reads and writes.
        gpus: 1 to measure on a GPU, else 0.

    Raises:
        KitError: as from ``kitlib.runtime.launch``.
    """
    configs.save(job, files.make_folder(folder) / JOB)
    for name, training in trainings.items():
        alike = replace(training, out=str(folder), train="", val="", weights="")
        configs.save(alike, folder / f"{name}.yaml")
    launch.launch("kitlib.forecast", [str(folder), *trainings], folder, gpus=gpus)
    found = files.read_json(folder / FIGURES)
    return {name: Figures(**values) for name, values in found.items()}


def write(folder: Path, figures: Mapping[str, Figures]) -> None:
    """Write what ``run`` reads."""
    files.write_json(folder / FIGURES, {name: asdict(values) for name, values in figures.items()})
