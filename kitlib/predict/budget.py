"""Predicting within a time: what is left out where there is not enough of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kitlib.predict.config import PredictConfig

RECENT = 8  # frames whose speed is believed: a machine may become slower
RESERVE = 1.1  # frames with more cells take longer


@dataclass(frozen=True)
class Plan:
    """How thoroughly a frame is looked at.

    Attributes:
        config: scales and turns.
        models: the first so many of the ensemble.
        without: what the full plan has and this one has not, in words; "" for the full plan.
        cost: pixels that go through a network for each pixel of the frame, at the most.
    """

    config: PredictConfig
    models: int
    without: str
    cost: float


def plans(config: PredictConfig, models: int) -> list[Plan]:
    """The full plan, then ever cheaper ones, down to one model that looks once.

    Turns are the first to go, from the last one on, then scales, then models: turns show the same pixels
    again, a further scale other detail, and another model is another opinion.
    """

    def plan(scales: int, turns: int, members: int) -> Plan:
        by_type = {name: values[:scales] for name, values in config.scales_by_type.items()}
        seen = replace(config, scales=config.scales[:scales], scales_by_type=by_type, tta=config.tta[:turns])
        lost = {
            "turns": config.tta[turns:],
            "scales": dict.fromkeys(scale for values in _scales(config) for scale in values[scales:]),
            "models": range(members + 1, models + 1),
        }
        words = [f"{what} {', '.join(map(str, gone))}" for what, gone in lost.items() if gone]
        return Plan(seen, members, " and ".join(words), _pixels(seen, members))

    most = max(map(len, _scales(config)))
    found = [plan(most, turns, models) for turns in range(len(config.tta), 0, -1)]
    found += [plan(scales, 1, models) for scales in range(most - 1, 0, -1)]
    found += [plan(1, 1, members) for members in range(models - 1, 0, -1)]
    return found


def _pixels(config: PredictConfig, models: int) -> float:
    """``Plan.cost``: for the type at which most is looked at."""
    first = config.scales[0] ** 2 if config.scales_by_type else 0.0  # the look that tells the type
    most = max(sum(scale**2 for scale in scales) for scales in _scales(config))
    return first + models * len(config.tta) * most


def _scales(config: PredictConfig) -> list[tuple[float, ...]]:
    """Those of every type."""
    return [config.scales, *config.scales_by_type.values()]


class Budget:
    """Says for each frame in turn which plan the time allows.

    Args:
        ladder: the plans, the fullest first.
        pixels: size of each frame, in the order in which they come.
        until: the time, by ``clock``, at which all must be done; None: there is no hurry.
    """

    def __init__(
        self,
        ladder: Sequence[Plan],
        pixels: Sequence[int],
        until: float | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.ladder, self.until, self.clock = tuple(ladder), until, clock
        self.pixels = deque(pixels)
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)  # (seconds, network pixels)

    def next(self) -> Plan | None:
        """The fullest plan with which this frame and all later ones are done in time.

        Where even the cheapest plan is too slow for all of them, it is given for as many frames as it can
        finish in time, and None for the rest.
        """
        plan = self._choose()
        self.frame = self.pixels.popleft()
        self.began = self.clock()
        return plan

    def done(self, plan: Plan) -> float:
        """Take note that the frame is done; the seconds that it took."""
        seconds = self.clock() - self.began
        self.recent.append((seconds, plan.cost * self.frame))
        return seconds

    def _choose(self) -> Plan | None:
        if self.until is None:
            return self.ladder[0]
        left = self.until - self.clock()
        if not self.recent:
            return self.ladder[0] if left > 0 else None
        pace = RESERVE * sum(s for s, _ in self.recent) / sum(p for _, p in self.recent)
        ahead = sum(self.pixels)
        for plan in self.ladder:
            if pace * plan.cost * ahead <= left:
                return plan
        cheapest = self.ladder[-1]
        return cheapest if pace * cheapest.cost * self.pixels[0] <= left else None
