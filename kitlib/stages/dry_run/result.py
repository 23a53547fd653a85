"""A forecast: what a run needs of the machine, and what each stage takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """Something that a run needs.

    Attributes:
        name: "disk".
        said: what there is, or what is wrong and the remedy.
        fine: False where the run would stop or fail.
    """

    name: str
    said: str
    fine: bool = True


@dataclass(frozen=True)
class StageForecast:
    """What a stage takes.

    Attributes:
        stage: "03_train", or one of its phases: "03_train phase 0".
        trained: trainings x iterations x images of a batch, and how many trainings run side by side; "" where
            it does not train.
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
        title: profile and devices, data, and how many images, a line each.
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
