"""Choosing thresholds on held-out frames, to maximise the competition metric exactly and in seconds.

Two properties make it cheap. Overlap is resolved best first, so the instances left at score threshold s are
those left at threshold 0 whose score is at least s: one resolution serves all thresholds. And disjoint
predictions cannot both have an IoU above 0.5 with one truth, so the number of matches is the number of
predictions whose best IoU is above t: no assignment has to be solved, overlapping truth included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kitlib import metric, rle
from kitlib.errors import KitError
from kitlib.post import overlap
from kitlib.post.thresholds import PostConfig, vote
from kitlib.records import Frame

SCORES = tuple(np.round(np.arange(0.05, 0.96, 0.025), 3).tolist())
AREAS = (0, 20, 40, 60, 80, 100, 150)
NMS = (1.0, 0.3, 0.15, 0.05)
CLIPPED = (0.2, 0.3, 0.5)
SPLIT = ("keep_largest", "keep_all")
TOLERANCE = 0.01  # thresholds within this share of the best count as equally good


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


def tune(truth: Sequence[Frame], predictions: Sequence[Frame], start: PostConfig | None = None) -> Tuning:
    """Tune score thresholds and least areas by category, then mask NMS and clipping, for all together.

    Coordinate search from ``start``. Of several thresholds within 1 % of the best the middle one of their
    unbroken run is taken, and a stricter area or another NMS only if it gains more than half of that: what
    was measured on a handful of frames is not to be believed to the last digit. Categories are those voted by
    the predictions, as for test frames.

    Args:
        truth: held-out frames with their true cells.
        predictions: all instances found in them, with scores, not post-processed; frames without any may be
            absent.

    Raises:
        KitError: no frames, or predictions for none of them.
    """
    start = start or PostConfig()
    predicted = {f.id: f for f in predictions}
    if not any(f.id in predicted for f in truth):
        raise KitError("there is nothing to tune on: no prediction has the id of a held-out frame")
    held = [_Held(f, predicted.get(f.id)) for f in truth]
    limits = config = _tune_limits(held, start)
    for name, choices in (("mask_nms", NMS), ("max_clipped", CLIPPED), ("split", SPLIT)):
        config = _tune_shared(held, config, name, choices)
    if config != limits:
        config = _tune_limits(held, config)
    groups = _groups(held)
    curves = {name: _curve(group, config, config.min_area_of(name)) for name, group in groups.items()}
    return Tuning(
        config=config,
        score=_mean_score(held, config),
        before=_mean_score(held, start),
        thresholds=SCORES,
        curves={name: tuple(curve.tolist()) for name, curve in curves.items()},
        frames={name: len(group) for name, group in groups.items()},
    )


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


class _Held:
    """A held-out frame, with all that does not depend on the configuration computed once."""

    def __init__(self, truth: Frame, predicted: Frame | None) -> None:
        cells = predicted.cells if predicted else ()
        cells = [cells[i] for i in overlap.rank(cells)]
        masks = [c.mask for c in cells]
        self.size = truth.height, truth.width
        self.category = vote(cells)
        self.scores = np.array([1.0 if c.score is None else c.score for c in cells])
        self.areas = rle.areas(masks)
        self.pixels = rle.pixels(masks)
        self.iou = rle.iou(masks, masks)
        self.true_areas = rle.areas([c.mask for c in truth.cells])
        true_pixels = rle.pixels([c.mask for c in truth.cells])
        self.true_pixels = np.concatenate([*true_pixels, np.empty(0, np.int64)])
        self.owner = np.repeat(np.arange(len(true_pixels)), self.true_areas)
        self._known: dict[tuple, tuple[NDArray, NDArray, NDArray]] = {}

    def survivors(self, config: PostConfig, least: int) -> tuple[NDArray, NDArray]:
        """Scores, descending, and best IoU with any truth, of the instances left at score threshold 0."""
        large = np.flatnonzero(self.areas >= max(least, 1))
        key = (len(large), config.mask_nms, config.max_clipped, config.split)
        if key not in self._known:
            self._known[key] = self._resolve(large, config)
        scores, areas, best_iou = self._known[key]
        keep = areas >= least
        return scores[keep], best_iou[keep]

    def best(self, least: int) -> float:
        """The best IoU with any truth of the instance that stays where none passes."""
        chosen = [*np.flatnonzero(self.areas >= max(least, 1))[:1], *np.flatnonzero(self.areas)[:1]]
        if not chosen:
            return 0.0
        labels = np.zeros(self.size[0] * self.size[1], np.int32)
        labels[self.pixels[chosen[0]]] = 1
        return float(self._best_iou(labels, self.areas[chosen[:1]])[0])

    def _resolve(self, chosen: NDArray, config: PostConfig) -> tuple[NDArray, NDArray, NDArray]:
        if config.mask_nms < 1:
            chosen = chosen[overlap.suppress(self.iou[np.ix_(chosen, chosen)], config.mask_nms)]
        pixels = [self.pixels[i] for i in chosen]
        painted = overlap.paint(pixels, *self.size, config.max_clipped, config.split)
        areas = np.array([len(p) for p in painted.pixels], np.int64)
        return self.scores[chosen[painted.index]], areas, self._best_iou(painted.labels, areas)

    def _best_iou(self, labels: NDArray, areas: NDArray) -> NDArray:
        shape = len(self.true_areas), len(areas) + 1
        pairs = self.owner * shape[1] + labels[self.true_pixels]
        common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)[:, 1:]
        union = self.true_areas[:, None] + areas - common
        return (common / np.maximum(union, 1)).max(axis=0, initial=0.0)


def _scores(frame: _Held, config: PostConfig, least: int, thresholds: Sequence[float]) -> NDArray:
    """The frame's competition score at each score threshold."""
    scores, best_iou = frame.survivors(config, least)
    matched = best_iou[:, None] > metric.THRESHOLDS
    matched = np.concatenate([np.zeros((1, matched.shape[1]), np.int64), np.cumsum(matched, axis=0)])
    number = np.searchsorted(-scores, -np.asarray(thresholds), side="right")
    tp = matched[number]
    if config.keep_best and (number == 0).any() and frame.areas.any():
        tp[number == 0], number[number == 0] = frame.best(least) > metric.THRESHOLDS, 1
    return metric.precision(tp, len(frame.true_areas), number[:, None]).mean(axis=1)


def _curve(frames: Iterable[_Held], config: PostConfig, least: int, thresholds=SCORES) -> NDArray:
    return np.mean([_scores(f, config, least, thresholds) for f in frames], axis=0)


def _groups(held: Sequence[_Held]) -> dict[str, list[_Held]]:
    """The frames by voted category, and all of them as ``default``."""
    names = sorted({f.category for f in held if f.category})
    return {"default": list(held)} | {name: [f for f in held if f.category == name] for name in names}


def _tune_limits(held: Sequence[_Held], config: PostConfig) -> PostConfig:
    """Score threshold and least area of each category, jointly."""
    score, min_area = dict(config.score), dict(config.min_area)
    for name, group in _groups(held).items():
        curves = [_curve(group, config, least) for least in AREAS]
        peaks = np.array([curve.max() for curve in curves])
        area = int(np.flatnonzero(peaks >= peaks.max() * (1 - TOLERANCE / 2))[0])
        if peaks.max() > 0:
            score[name], min_area[name] = SCORES[plateau_centre(curves[area])], AREAS[area]
    return replace(config, score=score, min_area=min_area)


def _tune_shared(
    held: Sequence[_Held], config: PostConfig, name: str, choices: Sequence[float]
) -> PostConfig:
    """The choice for one setting that all categories share; the present one unless another is clearly
    better."""
    options = [replace(config, **{name: choice}) for choice in choices]
    scores = [_mean_score(held, option) for option in options]
    winner = int(np.argmax(scores))
    clearly = scores[winner] > _mean_score(held, config) * (1 + TOLERANCE / 2)
    return options[winner] if clearly else config


def _mean_score(held: Sequence[_Held], config: PostConfig) -> float:
    each = [
        _scores(f, config, config.min_area_of(f.category), [config.score_of(f.category)])[0] for f in held
    ]
    return float(np.mean(each))
