"""Choosing the limits of each type on held-out frames, to maximise the competition metric exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kitlib import metric
from kitlib.errors import KitError
from kitlib.post.calibration import Calibration, calibrate
from kitlib.post.config import Limits, PostConfig, tables
from kitlib.post.thresholds import Predictions, by_level, nearest
from kitlib.post.tuning.frame import Held
from kitlib.records import Frame

SCORES = tuple(np.round(np.arange(0.05, 0.96, 0.025), 3).tolist())
AREAS = (0, 20, 40, 60, 80, 100, 150)
#: What is tried of the other limits, one after another; of the mask threshold, the levels that there are.
CHOICES: dict[str, Sequence[Any]] = {
    "fill_holes": (False, True),
    "largest_only": (False, True),
    "mask_nms": (1.0, 0.3, 0.15, 0.05),
    "max_clipped": (0.2, 0.3, 0.5),
    "split": ("keep_largest", "keep_all", "drop"),
    "max_area": (None, 4000, 2000, 1000),
}
#: Masks as the network gives them; of pixels that two claim, the better one's. A submission may not overlap.
DISJOINT = Limits(min_area=1, max_clipped=1.0, split="keep_all")
FEW = 100  # instances that are too few to calibrate on
TOLERANCE = 0.004  # thresholds within this share of the best count as equally good


@dataclass(frozen=True)
class Tuning:
    """What tuning found: the ``config``, its competition ``score`` on these frames and that of the starting
    configuration ``before``; for each category as voted, and ``default`` for all frames together, the
    ``curves`` of the score over ``thresholds`` with the other settings as found; ``frames`` counts the frames
    behind each curve."""

    config: PostConfig
    score: float
    before: float
    thresholds: tuple[float, ...]
    curves: dict[str, tuple[float, ...]]
    frames: dict[str, int]


def tune(truth: Sequence[Frame], predictions: Predictions, start: PostConfig | None = None) -> Tuning:
    """Tune all limits of each type by coordinate search from ``start``.

    Types are those voted by the predictions, as for test frames. Of several score thresholds within 0.4 %
    of the best the middle one of their unbroken run is taken, and another value of any other limit only if it
    gains more than half of that: what was measured on a handful of frames is not to be believed to the last
    digit.

    Args:
        truth: held-out frames with their true cells.
        predictions: all instances found in them, with scores, not post-processed, or such frames for each
            mask threshold; frames without any may be absent.

    Raises:
        KitError: no frames, or predictions for none of them.
    """
    start = start or PostConfig()
    return tune_held(hold(truth, predictions, start), start)


def hold(truth: Sequence[Frame], predictions: Predictions, start: PostConfig) -> list[Held]:
    """The held-out frames with what was predicted in them. Arguments and errors as for ``tune``."""
    levels = by_level(predictions)
    check(truth, levels)
    return [
        Held(f, {level: found.get(f.id, replace(f, cells=())) for level, found in levels.items()}, start)
        for f in truth
    ]


def check(truth: Sequence[Frame], levels: Mapping[float, Mapping[str, Frame]]) -> None:
    """Raise KitError if no held-out frame is among the predictions."""
    if not any(f.id in found for f in truth for found in levels.values()):
        raise KitError("there is nothing to tune on: no prediction has the id of a held-out frame")


def tune_held(held: Sequence[Held], start: PostConfig) -> Tuning:
    """As ``tune``, of frames that are held already: what they know of themselves is not computed again."""
    found = {"default": _score_and_area(held, _there(held, start.limits(None)))}  # for types not among these
    groups = by_type(held).items()
    found |= {name: search(group, start.limits(name)) for name, group in groups if name != "default"}
    return _tuning(held, start, found)


def tune_score(held: Sequence[Held], start: PostConfig) -> Tuning:
    """One score threshold for all types, the middle of its plateau, and nothing else: masks are cut at 0.5
    and made disjoint, whatever their size and shape."""
    limits = _there(held, DISJOINT)
    score = SCORES[plateau_centre(curve(held, limits))]
    return _tuning(held, start, {"default": replace(limits, score=score)})


def _tuning(held: Sequence[Held], start: PostConfig, found: Mapping[str, Limits]) -> Tuning:
    """What tuning found, from the limits of each type; types that are not named take the default's."""
    config, groups = replace(start, **tables(found)), by_type(held)
    limits = {name: found.get(name, found["default"]) for name in groups}
    return Tuning(
        config=config,
        score=mean_score(held, config),
        before=mean_score(held, start),
        thresholds=SCORES,
        curves={name: tuple(curve(group, limits[name]).tolist()) for name, group in groups.items()},
        frames={name: len(group) for name, group in groups.items()},
    )


def by_type(held: Sequence[Held]) -> dict[str, list[Held]]:
    """The frames by voted type, and all of them as ``default``."""
    names = sorted({f.category for f in held if f.category})
    return {"default": list(held)} | {name: [f for f in held if f.category == name] for name in names}


def mean_score(held: Sequence[Held], config: PostConfig) -> float:
    """The competition's score of the frames under a configuration."""
    types = {f.category for f in held}
    rules = {c: (config.limits(c), config.calibration(c)) for c in types}
    return float(np.mean([_score(f, *rules[f.category]) for f in held]))


def calibrated(held: Sequence[Held], config: PostConfig) -> PostConfig:
    """The configuration with the expected gain in place of its score thresholds.

    A type with too few instances takes the calibration of all together.
    """
    gain = {}
    for name, group in by_type(held).items():
        kept = [f.kept(config.limits(f.category)) for f in group]
        scores, best_iou = (np.concatenate(part) for part in list(zip(*kept, strict=True))[:2])
        if len(scores) >= (FEW if gain else 1):
            gain[name] = calibrate(scores, best_iou[:, None] > metric.THRESHOLDS, sum(f.cells for f in group))
    return replace(config, gain=gain)


def _score(frame: Held, limits: Limits, calibration: Calibration | None) -> float:
    kept = frame.kept(limits)
    return kept.value[calibration.number(kept.scores)] if calibration else kept.at(limits.score)


def curve(frames: Sequence[Held], limits: Limits) -> NDArray[np.float64]:
    """The score of the frames at each of ``SCORES``, the other limits as they are."""
    return np.mean([f.kept(limits).at(SCORES) for f in frames], axis=0)


def search(frames: Sequence[Held], start: Limits) -> Limits:
    """The limits that serve frames of one type best: score and area together, then each other limit."""
    limits = first = _score_and_area(frames, _there(frames, start))
    for name, choices in {"mask_threshold": list(frames[0].found), **CHOICES}.items():
        limits = _setting(frames, limits, name, choices)
    return limits if limits == first else _score_and_area(frames, limits)


def plateau_centre(curve: NDArray[np.float64], tolerance: float = TOLERANCE) -> int:
    """The index in the middle of the unbroken run, around the maximum, of values within ``tolerance`` (a
    share) of it."""
    good = curve >= curve.max() * (1 - tolerance)
    first = last = int(curve.argmax())
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(curve) - 1 and good[last + 1]:
        last += 1
    return (first + last) // 2


def _there(frames: Sequence[Held], limits: Limits) -> Limits:
    """The limits with a mask threshold that the frames' masks were cut at, as the submission's will be."""
    return replace(limits, mask_threshold=nearest(list(frames[0].found), limits.mask_threshold))


def _score_and_area(frames: Sequence[Held], limits: Limits) -> Limits:
    """Score threshold and least area together; of equally good areas the smallest."""
    curves = [curve(frames, replace(limits, min_area=area)) for area in AREAS]
    peaks = np.array([c.max() for c in curves])
    if peaks.max() == 0:
        return limits
    area = int(np.flatnonzero(peaks >= peaks.max() * (1 - TOLERANCE / 2))[0])
    return replace(limits, score=SCORES[plateau_centre(curves[area])], min_area=AREAS[area])


def _setting(frames: Sequence[Held], limits: Limits, name: str, choices: Sequence[Any]) -> Limits:
    """The choice for one limit, the score threshold following; the present one unless another is clearly
    better."""
    options = [replace(limits, **{name: choice}) for choice in choices]
    curves = [curve(frames, option) for option in options]
    winner = int(np.argmax([c.max() for c in curves]))
    if curves[winner].max() <= curve(frames, limits).max() * (1 + TOLERANCE / 2):
        return limits
    return replace(options[winner], score=SCORES[plateau_centre(curves[winner])])
