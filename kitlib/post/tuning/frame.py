"""A held-out frame as the tuner sees it: its score under any limits, with all that recurs computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kitlib import metric
from kitlib.masks import rle
from kitlib.post import overlap, thresholds
from kitlib.post.config import Limits, PostConfig
from kitlib.post.scores import rescore
from kitlib.post.thresholds import nearest
from kitlib.records import Frame


class Kept(NamedTuple):
    """What is left of a frame at score threshold 0: ``scores`` (K,) descending, ``best_iou`` (K,) with any
    true cell, and ``value`` (K + 1,): the competition score if the first k are kept."""

    scores: NDArray[np.float64]
    best_iou: NDArray[np.float64]
    value: NDArray[np.float64]

    def at(self, score: float | NDArray) -> NDArray[np.float64]:
        """The competition score at each score threshold."""
        return self.value[np.searchsorted(-self.scores, -np.asarray(score), side="right")]


class Held:
    """A held-out frame, with predictions that are not post-processed.

    Two properties make it cheap. Overlap is resolved best first, so the instances left at score threshold s
    are those left at threshold 0 whose score is at least s: one resolution serves all thresholds. And
    disjoint predictions cannot both have an IoU above 0.5 with one truth, so the number of matches is the
    number of predictions whose best IoU is above t: no assignment has to be solved, overlapping truth
    included.
    """

    def __init__(self, truth: Frame, found: Mapping[float, Frame], config: PostConfig) -> None:
        """
        Args:
            found: the predicted frame for each mask threshold; the first one votes for the type.
            config: what is not tuned: which score counts, and whether the best instance always stays.
        """
        self.category = thresholds.vote(next(iter(found.values())).cells)
        self.keep_best = config.keep_best
        self.found = {k: rescore(f, config.score_kind, config.forest) for k, f in found.items()}
        self.truth = _Truth(truth)
        self._shapes: dict[tuple, _Shapes] = {}
        self._resolved: dict[tuple, tuple[NDArray, NDArray, NDArray]] = {}
        self._kept: dict[Limits, Kept] = {}

    @property
    def cells(self) -> int:
        """How many cells the frame truly has."""
        return len(self.truth.areas)

    def kept(self, limits: Limits) -> Kept:
        """What the limits leave, whatever their score."""
        key = replace(limits, score=0.0)
        if key not in self._kept:
            self._kept[key] = self._keep(key)
        return self._kept[key]

    def _keep(self, limits: Limits) -> Kept:
        shapes = self.shapes(limits)
        fits = thresholds.fits(shapes.areas, limits)
        scores, areas, best_iou = self._resolve(shapes, fits, limits)
        large = areas >= limits.min_area
        scores, best_iou = scores[large], best_iou[large]
        matched = np.zeros((len(scores) + 1, len(metric.THRESHOLDS)), np.int64)
        np.cumsum(best_iou[:, None] > metric.THRESHOLDS, axis=0, out=matched[1:])
        number = np.arange(len(matched))[:, None]
        if self.keep_best and shapes.areas.any():
            chosen = np.argmax(fits) if fits.any() else np.argmax(shapes.areas > 0)
            matched[0] = self.truth.best_iou(*shapes.alone(int(chosen)))[0] > metric.THRESHOLDS
            number[0] = 1
        return Kept(scores, best_iou, metric.precision(matched, self.cells, number).mean(axis=1))

    def shapes(self, limits: Limits) -> _Shapes:
        """The masks as cut and mended under the limits, best first."""
        level = nearest(list(self.found), limits.mask_threshold)
        key = level, limits.fill_holes, limits.largest_only
        if key not in self._shapes:
            found = self.found[level]
            mended = thresholds.mend(found, limits)
            same = all(a.mask is b.mask for a, b in zip(mended.cells, found.cells, strict=True))
            as_found = replace(limits, fill_holes=False, largest_only=False)
            self._shapes[key] = self.shapes(as_found) if same and limits != as_found else _Shapes(mended)
        return self._shapes[key]

    def _resolve(
        self, shapes: _Shapes, fits: NDArray[np.bool_], limits: Limits
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Scores, areas and best IoU of the disjoint instances."""
        key = id(shapes), fits.tobytes(), limits.mask_nms, limits.max_clipped, limits.split
        if key not in self._resolved:
            chosen = np.flatnonzero(fits)
            if limits.mask_nms < 1:
                chosen = chosen[overlap.suppress(shapes.iou(chosen), limits.mask_nms)]
            pixels = [shapes.pixels[i] for i in chosen]
            painted = overlap.paint(pixels, *self.truth.size, limits.max_clipped, limits.split)
            areas = np.array([len(p) for p in painted.pixels], np.int64)
            scores = shapes.scores[chosen[painted.index]]
            self._resolved[key] = scores, areas, self.truth.best_iou(painted.labels, areas)
        return self._resolved[key]


class _Shapes:
    """The predicted masks of a frame, best first."""

    def __init__(self, frame: Frame) -> None:
        cells = [frame.cells[i] for i in overlap.rank(frame.cells)]
        self.size = frame.height * frame.width
        self.scores = np.array([1.0 if c.score is None else c.score for c in cells])
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
