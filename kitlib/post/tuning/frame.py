"""The score of a validation frame under any post-processing, with all that recurs computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib import metric
from kitlib.post import thresholds
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.scores import values
from kitlib.post.tuning.masks import Disjoint, FrameMasks, Masks


class ScoreCurve(NamedTuple):
    """The competition score of a frame by score threshold.

    Attributes:
        scores: (K,) of the instances that are left at score threshold 0, descending.
        best_iou: (K,) their best IoU with any true cell.
        value: (K + 1,) the competition score of the first k of them.
    """

    scores: NDArray[np.float64]
    best_iou: NDArray[np.float64]
    value: NDArray[np.float64]

    def at(self, score_threshold: float | Sequence[float]) -> NDArray[np.float64]:
        """The competition score at each score threshold."""
        return self.value[np.searchsorted(-self.scores, -np.asarray(score_threshold), side="right")]


@cache
def any_threshold(config: CategoryConfig) -> CategoryConfig:
    """What curves depend on: all but the score threshold."""
    return replace(config, score_threshold=0.0)


class FrameScorer:
    """Scores a validation frame, with predictions that are not post-processed, under any post-processing.

    Two properties make it fast. Overlap is resolved best first, so the instances left at score threshold s
    are those left at threshold 0 whose score is at least s: one resolution serves all thresholds. And
    disjoint predictions cannot both have an IoU above 0.5 with one truth, so the number of matches is the
    number of predictions whose best IoU is above t: no assignment has to be solved, overlapping truth
    included.

    Args:
        masks: of the frame.
        config: what is not tuned: which score ranks, and whether the best instance always stays.
    """

    def __init__(self, masks: FrameMasks, config: PostConfig) -> None:
        self.masks, self.keep_best = masks, config.keep_best
        self.true_category = masks.truth.category
        self.category = next(iter(masks.predicted.values())).category
        self.mask_thresholds, self.cells = masks.mask_thresholds, masks.cells
        self._scores = {level: _scores(masks, level, config) for level in masks.predicted}
        self._orders: dict[tuple[int, float], NDArray[np.int64]] = {}
        self._disjoint: dict[tuple, Disjoint] = {}
        self._curves: dict[CategoryConfig, ScoreCurve] = {}

    def curve(self, config: CategoryConfig) -> ScoreCurve:
        """The score by score threshold, whatever the configuration's own threshold is."""
        key = any_threshold(config)
        if key not in self._curves:
            self._curves[key] = self._curve(key)
        return self._curves[key]

    def _curve(self, config: CategoryConfig) -> ScoreCurve:
        level = thresholds.nearest(self.mask_thresholds, config.mask_threshold)
        masks = self.masks.cleaned(config)
        order = self._order(masks, level)
        fits = thresholds.fit_area(masks.areas[order], config)
        members, areas, best_iou = self._resolve(masks, order[fits], config)
        large = areas >= config.min_area
        scores, best_iou = self._scores[level][members[large]], best_iou[large]
        matched = np.zeros((len(scores) + 1, len(metric.THRESHOLDS)), np.int64)
        np.cumsum(best_iou[:, None] > metric.THRESHOLDS, axis=0, out=matched[1:])
        number = np.arange(len(matched))[:, None]
        if self.keep_best and masks.areas.any():
            chosen = order[np.argmax(fits) if fits.any() else np.argmax(masks.areas[order] > 0)]
            matched[0] = masks.best_iou[chosen] > metric.THRESHOLDS
            number[0] = 1
        return ScoreCurve(scores, best_iou, metric.precision(matched, self.cells, number).mean(axis=1))

    def _order(self, masks: Masks, level: float) -> NDArray[np.int64]:
        """The masks' indices, best first, as ``kitlib.records.rank`` has them."""
        key = id(masks), level
        if key not in self._orders:
            scores, areas = self._scores[level].tolist(), masks.areas.tolist()
            ranked = sorted(range(len(areas)), key=lambda i: (-scores[i], -areas[i], masks.texts[i], i))
            self._orders[key] = np.array(ranked, np.int64)
        return self._orders[key]

    def _resolve(self, masks: Masks, order: NDArray[np.int64], config: CategoryConfig) -> Disjoint:
        key = id(masks), order.tobytes(), config.mask_nms, config.max_clipped, config.split
        if key not in self._disjoint:
            self._disjoint[key] = masks.resolve(order, config)
        return self._disjoint[key]


def _scores(masks: FrameMasks, level: float, config: PostConfig) -> NDArray[np.float64]:
    """The score of each cell that was cut at a mask threshold."""
    known = masks.features(level) if config.score_kind == "learned" else None
    return np.array(values(masks.predicted[level], config.score_kind, config.forest, known), np.float64)
