"""Choosing the post-processing of each type that maximises the competition metric on validation frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kitlib import metric
from kitlib.errors import KitError
from kitlib.post.calibration import Calibration, calibrate
from kitlib.post.config import CategoryConfig, PostConfig, tables
from kitlib.post.thresholds import Predictions, by_mask_threshold, nearest
from kitlib.post.tuning.frame import FrameScorer, ScoreCurve
from kitlib.post.tuning.masks import FrameMasks
from kitlib.post.tuning.shares import SharedScorer, load
from kitlib.records import Frame

SCORE_THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.025), 3).tolist())
MIN_AREAS = (0, 20, 40, 60, 80, 100, 150)
#: A frame's scorer, in this process or another one.
Scorer = FrameScorer | SharedScorer
#: What is tried of the other fields, one after another; of the mask threshold, those at which masks were cut.
CHOICES: dict[str, Sequence[Any]] = {
    "fill_holes": (False, True),
    "largest_only": (False, True),
    "mask_nms": (1.0, 0.3, 0.15, 0.05),
    "max_clipped": (0.2, 0.3, 0.5),
    "split": ("keep_largest", "keep_all", "drop"),
    "max_area": (None, 4000, 2000, 1000),
}
#: Masks as the model gives them, made disjoint as a submission must be: a shared pixel is the better cell's.
_DISJOINT = CategoryConfig(min_area=1, max_clipped=1.0, split="keep_all")
_FEW = 100
"""Instances that are too few to calibrate on."""
_TOLERANCE = 0.004
"""Score thresholds within this share of the best count as equally good."""


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Attributes:
        config: the post-processing.
        score: its competition score on these frames.
        before: the score of the starting configuration.
        thresholds: score thresholds of the curves.
        curves: for each true type, and ``default`` for all frames together, the competition score by score
            threshold, the other fields of each frame those of its predicted type.
        frames: the number of frames behind each curve.
    """

    config: PostConfig
    score: float
    before: float
    thresholds: tuple[float, ...]
    curves: dict[str, tuple[float, ...]]
    frames: dict[str, int]


def tune(truth: Sequence[Frame], predictions: Predictions, start: PostConfig | None = None) -> Tuning:
    """Tune post-processing for each type by coordinate search.

    Types are the predicted ones, as for test frames. Of several score thresholds within 0.4 % of the best the
    middle one of their unbroken run is taken, and another value of any other field only if it gains more than
    half of that: a handful of frames does not measure the last digit.

    Args:
        truth: validation frames with their true cells.
        predictions: all instances found in them, with scores, not post-processed, or such frames for each
            mask threshold; frames without any may be absent.
        start: where the search starts.

    Raises:
        KitError: no frames, or predictions for none of them.
    """
    start = start or PostConfig()
    return tune_by_category(scorers(truth, predictions, start), start)


def scorers(truth: Sequence[Frame], predictions: Predictions, start: PostConfig) -> list[FrameScorer]:
    """A scorer of each validation frame. Arguments and errors as for ``tune``."""
    pairs = zip(truth, match(truth, predictions), strict=True)
    return [FrameScorer(FrameMasks(frame, found), start) for frame, found in pairs]


def match(truth: Sequence[Frame], predictions: Predictions) -> list[dict[float, Frame]]:
    """Each validation frame as predicted at each mask threshold; without cells where it was not.

    Raises:
        KitError: no validation frame is among the predictions.
    """
    found = by_mask_threshold(predictions)
    if not any(f.id in table for f in truth for table in found.values()):
        raise KitError("there is nothing to tune on: no prediction has the id of a validation frame")
    return [
        {
            threshold: table.get(f.id, replace(f, cells=(), category=None))
            for threshold, table in found.items()
        }
        for f in truth
    ]


def tune_by_category(frames: Sequence[Scorer], start: PostConfig) -> Tuning:
    """``tune``, with scorers that may serve several times."""
    # The default is for types that are not among these frames.
    found = {"default": _score_and_area(frames, _available(frames, start.for_category(None)))}
    groups = _by_category(frames).items()
    found |= {name: _search(group, start.for_category(name)) for name, group in groups if name != "default"}
    return _tuning(frames, start, found)


def tune_score_threshold(frames: Sequence[Scorer], start: PostConfig) -> Tuning:
    """One score threshold for all types, the middle of its plateau, and nothing else: masks are cut at 0.5
    and made disjoint, whatever their size and shape."""
    config = _available(frames, _DISJOINT)
    best = SCORE_THRESHOLDS[plateau_centre(curve(frames, config))]
    return _tuning(frames, start, {"default": replace(config, score_threshold=best)})


def _tuning(frames: Sequence[Scorer], start: PostConfig, found: Mapping[str, CategoryConfig]) -> Tuning:
    """What tuning found, from the configuration of each type; other types have the default's."""
    return described(frames, start, replace(start, **tables(found)))


def described(frames: Sequence[Scorer], start: PostConfig, config: PostConfig) -> Tuning:
    """What a configuration gives on these frames.

    Args:
        frames: their scorers.
        start: where tuning started.
        config: what it found, by whatever method.
    """
    names = sorted({f.true_category for f in frames if f.true_category})
    groups = {"default": list(frames)} | {n: [f for f in frames if f.true_category == n] for n in names}
    return Tuning(
        config=config,
        score=mean_score(frames, config),
        before=mean_score(frames, start),
        thresholds=SCORE_THRESHOLDS,
        curves={name: _curve(group, config) for name, group in groups.items()},
        frames={name: len(group) for name, group in groups.items()},
    )


def _curve(frames: Sequence[Scorer], config: PostConfig) -> tuple[float, ...]:
    """The frames' mean score at each of ``SCORE_THRESHOLDS``."""
    curves = [found.at(SCORE_THRESHOLDS) for found in _curves(frames, config)]
    return tuple(np.mean(curves, axis=0).tolist())


def _by_category(frames: Sequence[Scorer]) -> dict[str, list[Scorer]]:
    """The frames by predicted type, and all of them as ``default``."""
    names = sorted({f.category for f in frames if f.category})
    return {"default": list(frames)} | {name: [f for f in frames if f.category == name] for name in names}


def mean_score(frames: Sequence[Scorer], config: PostConfig) -> float:
    """The competition score of the frames under a configuration."""
    return float(np.mean(frame_scores(frames, config)))


def frame_scores(frames: Sequence[Scorer], config: PostConfig) -> list[float]:
    """The competition score of each frame under a configuration."""
    calibrations = {f.category: config.calibration(f.category) for f in frames}
    thresholds = {f.category: config.for_category(f.category).score_threshold for f in frames}
    return [
        float(
            curve.value[calibration.number(curve.scores)] if calibration else curve.at(thresholds[f.category])
        )
        for f, curve in zip(frames, _curves(frames, config), strict=True)
        for calibration in [calibrations[f.category]]
    ]


def _curves(frames: Sequence[Scorer], config: PostConfig) -> list[ScoreCurve]:
    """The curve of each frame, under the configuration of its type."""
    by_type = {f.category: config.for_category(f.category) for f in frames}
    load((f, by_type[f.category]) for f in frames)
    return [f.curve(by_type[f.category]) for f in frames]


def calibrated(frames: Sequence[Scorer], config: PostConfig) -> PostConfig:
    """The configuration with calibrations in place of its score thresholds.

    A type with too few instances takes the calibration of all together.
    """
    calibrations: dict[str, Calibration] = {}
    for name, group in _by_category(frames).items():
        curves = _curves(group, config)
        scores = np.concatenate([c.scores for c in curves])
        best_iou = np.concatenate([c.best_iou for c in curves])
        if len(scores) >= (_FEW if calibrations else 1):
            matched = best_iou[:, None] > metric.THRESHOLDS
            calibrations[name] = calibrate(scores, matched, sum(f.cells for f in group))
    return replace(config, calibrations=calibrations)


def curve(frames: Sequence[Scorer], config: CategoryConfig) -> NDArray[np.float64]:
    """The mean score of the frames at each of ``SCORE_THRESHOLDS``, the other fields as they are."""
    return _mean_curves(frames, [config])[0]


def _mean_curves(frames: Sequence[Scorer], configs: Sequence[CategoryConfig]) -> list[NDArray[np.float64]]:
    """``curve`` for each of some configurations, calculated together."""
    load((f, config) for config in configs for f in frames)
    return [np.mean([f.curve(config).at(SCORE_THRESHOLDS) for f in frames], axis=0) for config in configs]


def _search(frames: Sequence[Scorer], start: CategoryConfig) -> CategoryConfig:
    """The best post-processing of frames of one type: score threshold and least area together, then each
    other field."""
    config = first = _score_and_area(frames, _available(frames, start))
    for name, choices in {"mask_threshold": frames[0].mask_thresholds, **CHOICES}.items():
        config = _best_choice(frames, config, name, choices)
    return config if config == first else _score_and_area(frames, config)


def plateau_centre(curve: NDArray[np.float64], tolerance: float = _TOLERANCE) -> int:
    """The index in the middle of the unbroken run, around the maximum, of values within ``tolerance`` (a
    share) of it."""
    good = curve >= curve.max() * (1 - tolerance)
    first = last = int(curve.argmax())
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(curve) - 1 and good[last + 1]:
        last += 1
    return (first + last) // 2


def _available(frames: Sequence[Scorer], config: CategoryConfig) -> CategoryConfig:
    """The configuration with a mask threshold at which masks were cut, as the submission's will be."""
    return replace(config, mask_threshold=nearest(frames[0].mask_thresholds, config.mask_threshold))


def _score_and_area(frames: Sequence[Scorer], config: CategoryConfig) -> CategoryConfig:
    """The best score threshold and least area together; of equally good areas the smallest."""
    curves = _mean_curves(frames, [replace(config, min_area=area) for area in MIN_AREAS])
    peaks = np.array([c.max() for c in curves])
    if peaks.max() == 0:
        return config
    area = int(np.flatnonzero(peaks >= peaks.max() * (1 - _TOLERANCE / 2))[0])
    best = SCORE_THRESHOLDS[plateau_centre(curves[area])]
    return replace(config, score_threshold=best, min_area=MIN_AREAS[area])


def _best_choice(
    frames: Sequence[Scorer], config: CategoryConfig, name: str, choices: Sequence[Any]
) -> CategoryConfig:
    """The configuration with the best choice of one field and a score threshold for it; unchanged unless the
    choice is clearly better."""
    options = [replace(config, **{name: choice}) for choice in choices]
    *curves, present = _mean_curves(frames, [*options, config])
    winner = int(np.argmax([c.max() for c in curves]))
    if curves[winner].max() <= present.max() * (1 + _TOLERANCE / 2):
        return config
    return replace(options[winner], score_threshold=SCORE_THRESHOLDS[plateau_centre(curves[winner])])
