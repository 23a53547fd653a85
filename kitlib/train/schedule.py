"""Learning-rate schedules as plain functions of the iteration, which counts from 0."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from kitlib.config import Float, Int, Share, configuration


@configuration
class ScheduleConfig:
    """Which schedule, and its numbers.

    The defaults are the paper's: eq. 4 with eta_max 0.005, eta_min 1e-5, T_max 200, no warm-up.
    """

    name: Literal["cosine_periodic", "cosine"] = "cosine_periodic"
    max_lr: Float = 0.005
    """The highest learning rate."""
    min_lr: Annotated[Float, Field(ge=0)] = 1e-5
    """The lowest learning rate."""
    period: Annotated[Int, Field(ge=1)] = 200
    """Of "cosine_periodic": iterations from max_lr to min_lr."""
    warmup_iters: Annotated[Int, Field(ge=0)] = 0
    """The rate rises linearly to its value over these first iterations."""
    warmup_factor: Share = 0.001
    """Where that rise starts, as in detectron2."""

    def __post_init__(self) -> None:
        if self.min_lr > self.max_lr:
            raise ValueError(f"min_lr {self.min_lr} must not be above max_lr {self.max_lr}")

    @property
    def needs_length(self) -> bool:
        """Whether the rates depend on how long the training is."""
        return self.name == "cosine"


def cosine_periodic(t: float, max_lr: float, min_lr: float, period: float) -> float:
    """Eq. 4 of the paper: ``min + (max - min) / 2 * (1 + cos(pi * t / period))``, t the current iteration.

    To the letter, t is never reset: after ``period`` iterations the rate climbs back the way it came, so the
    curve repeats every ``2 * period`` iterations.

    Example:
        >>> [cosine_periodic(t, 0.005, 1e-5, 200) for t in (0, 200, 400)]
        [0.005, 1e-05, 0.005]
    """
    return min_lr + (max_lr - min_lr) / 2 * (1 + math.cos(math.pi * t / period))


def cosine(t: float, max_lr: float, min_lr: float, length: float) -> float:
    """One half cosine from max at 0 to min at ``length``, min from there on."""
    return cosine_periodic(min(t, length), max_lr, min_lr, length) if length > 0 else min_lr


def warmup(t: float, length: int, factor: float) -> float:
    """The multiplier of a linear warm-up: ``factor`` at 0, 1 from ``length`` on."""
    return 1.0 if t >= length else factor + (1 - factor) * t / length


def lr_at(config: ScheduleConfig, t: int, max_iter: int) -> float:
    """The learning rate of iteration ``t`` (from 0) of a training of ``max_iter`` iterations."""
    rise = warmup(t, config.warmup_iters, config.warmup_factor)
    if config.name == "cosine":
        # The rise takes the first part, the cosine the rest: together they end at max_iter.
        after = max(t - config.warmup_iters, 0)
        return rise * cosine(after, config.max_lr, config.min_lr, max_iter - config.warmup_iters)
    return rise * cosine_periodic(t, config.max_lr, config.min_lr, config.period)


def curve(config: ScheduleConfig, max_iter: int) -> list[float]:
    """The learning rate of every iteration, for a plot."""
    return [lr_at(config, t, max_iter) for t in range(max_iter)]
