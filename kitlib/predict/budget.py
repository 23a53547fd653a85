"""Predicting within a time limit: what is left out where time is short."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kitlib.predict.config import PredictConfig

_RECENT = 8
"""Frames from which the speed is calculated: a machine may become slower."""
_RESERVE = 1.1
"""Factor on that time, as frames with more cells take longer."""


@dataclass(frozen=True)
class Plan:
    """The views and models that predict a frame.

    Attributes:
        config: scales and orientations.
        models: how many models of the ensemble, the first ones.
        without: what the full plan has and this one has not, in words; "" for the full plan.
        cost: pixels that go through a model for each pixel of the frame, at the most.
    """

    config: PredictConfig
    models: int
    without: str
    cost: float


def plans(config: PredictConfig, models: int) -> list[Plan]:
    """The full plan, then ever cheaper ones, down to one model at one scale.

    Orientations are the first to go, from the last one on, then scales, then models: another orientation
    shows the same pixels again, another scale other detail, and another model is another opinion.

    Args:
        config: scales and orientations of the full plan.
        models: how many there are.
    """

    def plan(scales: int, orientations: int, members: int) -> Plan:
        by_type = {name: values[:scales] for name, values in config.scales_by_type.items()}
        less = replace(
            config, scales=config.scales[:scales], scales_by_type=by_type, tta=config.tta[:orientations]
        )
        lost = {
            "orientations": config.tta[orientations:],
            "scales": dict.fromkeys(scale for values in _scales(config) for scale in values[scales:]),
            "models": range(members + 1, models + 1),
        }
        words = [f"{what} {', '.join(map(str, gone))}" for what, gone in lost.items() if gone]
        return Plan(less, members, " and ".join(words), _pixels(less, members))

    most = max(map(len, _scales(config)))
    found = [plan(most, orientations, models) for orientations in range(len(config.tta), 0, -1)]
    found += [plan(scales, 1, models) for scales in range(most - 1, 0, -1)]
    found += [plan(1, 1, members) for members in range(models - 1, 0, -1)]
    return found


def _pixels(config: PredictConfig, models: int) -> float:
    """``Plan.cost``: for the type with the most pixels."""
    # Where scales differ by type, a first look at the frame tells its type.
    first = config.scales[0] ** 2 if config.scales_by_type else 0.0
    most = max(sum(scale**2 for scale in scales) for scales in _scales(config))
    return first + models * len(config.tta) * most


def _scales(config: PredictConfig) -> list[tuple[float, ...]]:
    """Those of every type."""
    return [config.scales, *config.scales_by_type.values()]


class Budget:
    """Chooses, frame after frame, the plan that the time allows.

    Args:
        plans: the fullest first.
        pixels: size of each frame, in the order in which they come.
        until: the time, by ``clock``, at which all must be done; None for no limit.
        clock: the time in seconds.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        pixels: Sequence[int],
        until: float | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.plans, self.until, self.clock = tuple(plans), until, clock
        self.pixels = deque(pixels)
        # Seconds, and pixels that went through a model.
        self.recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)

    def next(self, frames: int = 1) -> Plan | None:
        """The fullest plan with which these frames and all later ones are done in time.

        Where even the cheapest plan is too slow for all frames, it serves as many as it can finish in time;
        the others get None.

        Args:
            frames: how many are begun together.
        """
        plan = self._choose()
        self.begun = [self.pixels.popleft() for _ in range(frames)]
        self.began = self.clock()
        return plan

    def elapsed(self) -> float:
        """Seconds since these frames were begun."""
        return self.clock() - self.began

    def done(self, plan: Plan) -> None:
        """Note that the frames are done with a plan."""
        self.recent.append((self.elapsed(), plan.cost * sum(self.begun)))

    def _choose(self) -> Plan | None:
        if self.until is None:
            return self.plans[0]
        left = self.until - self.clock()
        if not self.recent:
            return self.plans[0] if left > 0 else None
        pace = _RESERVE * sum(s for s, _ in self.recent) / sum(p for _, p in self.recent)
        ahead = sum(self.pixels)
        for plan in self.plans:
            if pace * plan.cost * ahead <= left:
                return plan
        cheapest = self.plans[-1]
        return cheapest if pace * cheapest.cost * self.pixels[0] <= left else None
