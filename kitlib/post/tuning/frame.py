"""The score of a validation frame under any post-processing, with all that recurs computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kitlib import metric
from kitlib.masks import rle
from kitlib.post import overlap, thresholds
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.scores import rescore
from kitlib.records import Frame, rank


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


class FrameScorer:
    """Scores a validation frame, with predictions that are not post-processed, under any post-processing.

    Two properties make it fast. Overlap is resolved best first, so the instances left at score threshold s
    are those left at threshold 0 whose score is at least s: one resolution serves all thresholds. And
    disjoint predictions cannot both have an IoU above 0.5 with one truth, so the number of matches is the
    number of predictions whose best IoU is above t: no assignment has to be solved, overlapping truth
    included.
    """

    def __init__(self, truth: Frame, predicted: Mapping[float, Frame], config: PostConfig) -> None:
        """
        Args:
            truth: the frame with its true cells.
            predicted: the predicted frame for each mask threshold; all have the same type.
            config: what is not tuned: which score ranks, and whether the best instance always stays.
        """
        self.true_category, self.category = truth.category, next(iter(predicted.values())).category
        self.keep_best = config.keep_best
        self.predicted = {k: rescore(f, config.score_kind, config.forest) for k, f in predicted.items()}
        self.truth = _Truth(truth)
        self._shapes: dict[tuple, _Shapes] = {}
        self._disjoint: dict[tuple, tuple[NDArray, NDArray, NDArray]] = {}
        self._curves: dict[CategoryConfig, ScoreCurve] = {}

    @property
    def mask_thresholds(self) -> list[float]:
        """Those at which masks were cut."""
        return list(self.predicted)

    @property
    def cells(self) -> int:
        """How many cells the frame truly has."""
        return len(self.truth.areas)

    def curve(self, config: CategoryConfig) -> ScoreCurve:
        """The score by score threshold, whatever the configuration's own threshold is."""
        key = replace(config, score_threshold=0.0)
        if key not in self._curves:
            self._curves[key] = self._curve(key)
        return self._curves[key]

    def _curve(self, config: CategoryConfig) -> ScoreCurve:
        shapes = self._clean(config)
        fits = thresholds.fit_area(shapes.areas, config)
        scores, areas, best_iou = self._resolve(shapes, fits, config)
        large = areas >= config.min_area
        scores, best_iou = scores[large], best_iou[large]
        matched = np.zeros((len(scores) + 1, len(metric.THRESHOLDS)), np.int64)
        np.cumsum(best_iou[:, None] > metric.THRESHOLDS, axis=0, out=matched[1:])
        number = np.arange(len(matched))[:, None]
        if self.keep_best and shapes.areas.any():
            chosen = np.argmax(fits) if fits.any() else np.argmax(shapes.areas > 0)
            matched[0] = self.truth.best_iou(*shapes.alone(int(chosen)))[0] > metric.THRESHOLDS
            number[0] = 1
        return ScoreCurve(scores, best_iou, metric.precision(matched, self.cells, number).mean(axis=1))

    def _clean(self, config: CategoryConfig) -> _Shapes:
        """The masks as cut and cleaned under the configuration, best first."""
        mask_threshold = thresholds.nearest(self.mask_thresholds, config.mask_threshold)
        key = mask_threshold, config.fill_holes, config.largest_only
        if key not in self._shapes:
            found = self.predicted[mask_threshold]
            cleaned = thresholds.clean_masks(found, config)
            same = all(a.mask is b.mask for a, b in zip(cleaned.cells, found.cells, strict=True))
            as_found = replace(config, fill_holes=False, largest_only=False)
            self._shapes[key] = self._clean(as_found) if same and config != as_found else _Shapes(cleaned)
        return self._shapes[key]

    def _resolve(
        self, shapes: _Shapes, fits: NDArray[np.bool_], config: CategoryConfig
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Scores, areas and best IoU of the disjoint instances."""
        key = id(shapes), fits.tobytes(), config.mask_nms, config.max_clipped, config.split
        if key not in self._disjoint:
            chosen = np.flatnonzero(fits)
            if config.mask_nms < 1:
                chosen = chosen[overlap.suppress(shapes.iou(chosen), config.mask_nms)]
            pixels = [shapes.pixels[i] for i in chosen]
            painted = overlap.paint(pixels, *self.truth.size, config.max_clipped, config.split)
            areas = np.array([len(p) for p in painted.pixels], np.int64)
            scores = shapes.scores[chosen[painted.index]]
            self._disjoint[key] = scores, areas, self.truth.best_iou(painted.labels, areas)
        return self._disjoint[key]


class _Shapes:
    """The predicted masks of a frame, best first."""

    def __init__(self, frame: Frame) -> None:
        cells = [frame.cells[i] for i in rank(frame.cells)]
        self.size = frame.height * frame.width
        self.scores = np.array([c.confidence for c in cells])
        self.masks = [c.mask for c in cells]
        self.areas = rle.areas(self.masks)

    @cached_property
    def pixels(self) -> list[NDArray[np.int32]]:
        """The flat indices of each mask's pixels."""
        return [p.astype(np.int32) for p in rle.pixels(self.masks)]

    @cached_property
    def _overlaps(self) -> csr_array:
        """IoU of each mask with each, few of which overlap."""
        return csr_array(rle.iou(self.masks, self.masks))

    def iou(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """IoU of the chosen masks with each other."""
        return self._overlaps[chosen][:, chosen].toarray()

    def alone(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The label map and the areas of one mask alone."""
        labels = np.zeros(self.size, np.int32)
        labels[self.pixels[index]] = 1
        return labels, self.areas[index : index + 1]


class _Truth:
    """The true cells of a frame; they may overlap."""

    def __init__(self, frame: Frame) -> None:
        masks = [c.mask for c in frame.cells]
        self.size = frame.height, frame.width
        self.areas = rle.areas(masks)
        self.pixels = np.concatenate([*rle.pixels(masks), np.empty(0, np.int64)])
        self.owner = np.repeat(np.arange(len(masks)), self.areas)

    def best_iou(self, labels: NDArray[np.int32], areas: NDArray[np.int64]) -> NDArray[np.float64]:
        """The best IoU with any true cell of each instance of a flat label map, (K,)."""
        shape = len(self.areas), len(areas) + 1
        pairs = self.owner * shape[1] + labels[self.pixels]
        common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)[:, 1:]
        union = self.areas[:, None] + areas - common
        return (common / np.maximum(union, 1)).max(axis=0, initial=0.0)
