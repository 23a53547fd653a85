"""Which score ranks the instances: the box score, the mask score, both, or one learned from features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import ScoreKind
from kitlib.post.forest import Forest
from kitlib.records import Cell, Frame

_MOST = 30_000
"""Instances to learn from; more make learning slow and the score no better."""
#: What the learned score is calculated from, see ``features``.
NAMES = (
    *("score", "mask_score", "agreement"),
    *("log_area", "elongation", "extent", "solidity"),
    *("overlapping", "overlapping_better", "best_iou", "best_iou_better", "score_near"),
    *("cells", "mean_score", "median_log_area"),
)


def features(frame: Frame) -> NDArray[np.float64]:
    """The features of each cell, (N, 15), in the order of ``NAMES``.

    A missing mask score or agreement counts as 1. Frame by frame the number, the mean score and the median
    size of the instances stand for the type, whatever types a data set has.
    """
    cells = frame.cells
    if not cells:
        return np.zeros((0, len(NAMES)))
    scores = np.array([_numbers(c) for c in cells])
    shapes = _shapes([c.mask for c in cells])
    of_frame = len(cells), scores[:, 0].mean(), np.median(shapes[:, 0])
    return np.hstack([scores, shapes, _neighbours(frame, scores[:, 0]), np.tile(of_frame, (len(cells), 1))])


def _numbers(cell: Cell) -> list[float]:
    return [cell.confidence, *(1.0 if v is None else v for v in (cell.mask_score, cell.agreement))]


def _shapes(masks: list[rle.RLE]) -> NDArray[np.float64]:
    """Log area, the box's longer by its shorter side, the share of the box and of the convex hull, (N, 4)."""
    areas, boxes = rle.areas(masks), rle.boxes(masks)
    sides = np.sort(np.maximum(boxes[:, 2:] - boxes[:, :2], 1), axis=1)
    ratios = sides[:, 1] / sides[:, 0], areas / sides.prod(axis=1), areas / np.maximum(_hulls(masks), 1)
    return np.stack([np.log(areas + 1), *ratios], axis=1)


def _hulls(masks: list[rle.RLE]) -> NDArray[np.float64]:
    """The area of the convex hull of each mask's pixels, each a square of side 1, (N,)."""
    owner, row, first, end = rle.row_runs(masks)
    if not len(owner):
        return np.zeros(len(masks))
    # Of each row of a mask the first and the last pixel are enough.
    begins = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
    left, right = first[begins], np.maximum.reduceat(end, begins)
    y, owner = row[begins], owner[begins]
    corners = np.stack([left, y, left, y + 1, right, y, right, y + 1], axis=1).astype(np.int32)
    bounds = np.searchsorted(owner, np.arange(len(masks) + 1)).tolist()
    outlines = [corners[a:b].reshape(-1, 2) for a, b in itertools.pairwise(bounds)]
    return np.array([cv2.contourArea(cv2.convexHull(points)) if len(points) else 0.0 for points in outlines])


def _neighbours(frame: Frame, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many others overlap and how many better ones, the highest IoU with any and with a better one, and
    the mean score of the overlapping, (N, 5)."""
    masks = [c.mask for c in frame.cells]
    iou = rle.iou(masks, masks)
    np.fill_diagonal(iou, 0)
    touching, better = iou > 0, scores[None] > scores[:, None]
    number = touching.sum(axis=1)
    near = (touching @ scores) / np.maximum(number, 1)
    return np.stack(
        [number, (touching & better).sum(axis=1), iou.max(axis=1), (iou * better).max(axis=1), near], axis=1
    )


def rescore(frame: Frame, kind: ScoreKind, forest: Forest | None = None) -> Frame:
    """The frame with the chosen score as each cell's score; annotated cells, which have none, stay so.

    Args:
        frame: with its predicted cells.
        kind: "box" as predicted; "mask" the mean probability of the mask's pixels; "product" of both;
            "learned" the IoU that the forest expects. A mask score that is not known counts as 1.
        forest: the trees of the learned score.

    Raises:
        KitError: a learned score without a forest.
    """
    if kind == "box" or not frame.cells:
        return frame
    pairs = zip(frame.cells, values(frame, kind, forest), strict=True)
    return replace(frame, cells=tuple(c if c.score is None else replace(c, score=s) for c, s in pairs))


def values(
    frame: Frame,
    kind: ScoreKind,
    forest: Forest | None = None,
    known: NDArray[np.float64] | None = None,
) -> list[float]:
    """The chosen score of each cell; 1 of annotated cells.

    Args:
        frame, kind, forest: as for ``rescore``.
        known: the frame's ``features``, where they were calculated before.

    Raises:
        KitError: a learned score without a forest.
    """
    if kind == "learned":
        if forest is None:
            raise KitError("score_kind 'learned' needs the trees that were fitted; take post.yaml whole")
        found = forest.predict(features(frame) if known is None else known).clip(0, 1).tolist()
    else:
        found = [_score(cell, kind) for cell in frame.cells]
    return [
        cell.confidence if cell.score is None else score
        for cell, score in zip(frame.cells, found, strict=True)
    ]


class Samples(NamedTuple):
    """Instances to learn from: ``features`` (N, 15) and ``targets`` (N,), the best IoU with any true cell."""

    features: NDArray[np.float64]
    targets: NDArray[np.float64]


def samples(truth: Frame, found: Frame, known: NDArray[np.float64] | None = None) -> Samples:
    """The instances of a frame to learn from.

    Args:
        truth: a frame that the model which predicted did not train on.
        found: the same frame with all instances found in it.
        known: its ``features``, where they were calculated before.
    """
    iou = rle.iou([c.mask for c in truth.cells], [c.mask for c in found.cells])
    return Samples(features(found) if known is None else known, iou.max(axis=0, initial=0))


def choose(parts: Sequence[Samples], seed: int = 0) -> Samples:
    """What to learn from of the instances of many frames; ``seed`` draws it where there are very many."""
    x = np.concatenate([np.zeros((0, len(NAMES))), *(part.features for part in parts)])
    y = np.concatenate([np.zeros(0), *(part.targets for part in parts)])
    chosen = np.random.default_rng(seed).permutation(len(x))[:_MOST]
    return Samples(x[chosen], y[chosen])


def _score(cell: Cell, kind: ScoreKind) -> float:
    if kind == "box":
        return cell.confidence
    mask = 1.0 if cell.mask_score is None else cell.mask_score
    return mask if kind == "mask" else mask * cell.confidence
