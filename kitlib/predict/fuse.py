"""Many detections of one cell, by several models and views, become one instance.

Classes are ignored, since a frame holds cells of one type; an instance gets the class for which the scores of
its detections add up to most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections, paste


@dataclass(frozen=True)
class Fused:
    """The instances of a frame, in no order.

    Attributes:
        scores: (N,) in 0..1.
        classes: (N,) int.
        agreement: (N,) share, in 0..1, of the sources that saw the instance.
        members: the detections whose soft masks make up each instance's, as indices.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    agreement: NDArray[np.float64]
    members: list[NDArray[np.int64]]

    def best(self, floor: float, most: int) -> NDArray[np.int64]:
        """Indices of the best instances with a score of at least ``floor``, best first."""
        order = np.lexsort([np.arange(len(self.scores)), -self.scores])
        return order[self.scores[order] >= floor][:most]


def alone(found: Detections) -> Fused:
    """Every detection of a single source as an instance of its own."""
    return Fused(found.scores, found.classes, np.ones(len(found)), list(np.arange(len(found))[:, None]))


def fuse(found: Detections, sources: int, size: tuple[int, int], config: PredictConfig) -> Fused:
    """One instance for each cell of a frame, by the method ``config.fuse``.

    Args:
        found: what all sources detected, in the frame's pixels.
        sources: how many there were; each of them could see every cell.
        size: (height, width) of the frame.
        config: ``fuse``, ``fuse_iou`` and ``score_floor``.
    """
    if not len(found):
        return alone(found)
    if config.fuse == "nms":
        return _suppress(found, sources, size, config)
    return wbf(found, sources, config.fuse_iou)


def wbf(found: Detections, sources: int, iou: float) -> Fused:
    """Weighted boxes fusion (Solovyev et al. 2021, https://arxiv.org/abs/1910.13302).

    A source that did not see an instance counts as a score of 0: the score is the sum of each source's best
    one, divided by the number of sources. That is the paper's mean score times the share of sources that saw
    the instance, except where a source has it twice (as two classes, or in two tiles): that neither raises
    nor lowers the score.

    Args:
        found: what all sources detected, in the frame's pixels.
        sources: how many there were.
        iou: boxes that overlap by more than this are of one instance.
    """
    order = np.argsort(-found.scores, kind="stable")
    cluster, boxes = clusters(found.boxes[order], found.scores[order], iou)
    scores, source, count = found.scores[order], found.sources[order], len(boxes)
    # The best detection of each source in each cluster.
    best = np.unique(cluster * sources + source, return_index=True)[1]
    votes = np.zeros((count, found.classes.max(initial=0) + 1))
    np.add.at(votes, (cluster, found.classes[order]), scores)
    return Fused(
        scores=np.bincount(cluster[best], scores[best], count) / sources,
        classes=votes.argmax(axis=1),
        agreement=np.bincount(cluster[best], minlength=count) / sources,
        members=np.split(order[np.argsort(cluster, kind="stable")], np.cumsum(np.bincount(cluster))[:-1]),
    )


class Clusters(NamedTuple):
    """``owner`` (N,): to which of the K clusters each box belongs; ``boxes`` (K, 4): their fused boxes."""

    owner: NDArray[np.int64]
    boxes: NDArray[np.float64]


def clusters(boxes: NDArray[np.float64], scores: NDArray[np.float64], iou: float) -> Clusters:
    """Boxes, given best first, each joined to the cluster whose fused box it overlaps most, if by more than
    ``iou``; a fused box is the mean of its members, weighted by their scores.

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        scores: (N,) descending.
        iou: the overlap up to which a box begins a cluster of its own.
    """
    owner = np.zeros(len(boxes), np.int64)
    sums, weights = np.zeros((4, len(boxes))), np.zeros(len(boxes))
    fused, areas, count = np.zeros((4, len(boxes))), np.zeros(len(boxes)), 0
    for i, (box, score) in enumerate(zip(boxes, scores.tolist(), strict=True)):
        overlap = _box_iou(fused[:, :count], areas[:count], box)
        k = int(overlap.argmax()) if count else 0
        if not count or overlap[k] <= iou:
            k = count
            count += 1
        owner[i] = k
        sums[:, k] += score * box
        weights[k] += score
        fused[:, k] = sums[:, k] / weights[k]
        areas[k] = (fused[2, k] - fused[0, k]) * (fused[3, k] - fused[1, k])
    return Clusters(owner, fused[:, :count].T)


def _suppress(found: Detections, sources: int, size: tuple[int, int], config: PredictConfig) -> Fused:
    """Mask NMS: the best detection of each cell stays.

    Masks are compared and not boxes, because the boxes of long cells side by side overlap. Arguments as for
    ``fuse``.
    """
    masks = [_mask(square, box, size) for square, box in zip(found.squares, found.boxes, strict=True)]
    x0, y0, x1, y1 = found.boxes.T
    left = found.scores >= config.score_floor
    chosen, classes, agreement = [], [], []
    for i in np.argsort(-found.scores, kind="stable").tolist():
        if not left[i]:
            continue
        near = np.flatnonzero((x0 < x1[i]) & (x0[i] < x1) & (y0 < y1[i]) & (y0[i] < y1))
        # The IoU of two empty masks is not a number.
        overlap = np.nan_to_num(rle.iou([masks[i]], [masks[j] for j in near])[0])
        same = np.union1d(near[overlap > config.fuse_iou], i)
        left[same] = False
        chosen.append(i)
        classes.append(np.bincount(found.classes[same], found.scores[same]).argmax())
        agreement.append(len(np.unique(found.sources[same])) / sources)
    members = list(np.array(chosen, np.int64)[:, None])
    return Fused(found.scores[chosen], np.array(classes, np.int64), np.array(agreement), members)


def _box_iou(boxes: NDArray, areas: NDArray, box: NDArray) -> NDArray[np.float64]:
    """IoU of (4, K) boxes, whose areas are known, with one box."""
    sides = np.minimum(boxes[2:], box[2:, None]) - np.maximum(boxes[:2], box[:2, None])
    shared = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
    return shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)


def _mask(square: NDArray[np.float32], box: NDArray[np.float64], size: tuple[int, int]) -> rle.RLE:
    patch = paste(square, box, *size)
    return rle.from_crop(patch.values >= 0.5, patch.x, patch.y, *size)
