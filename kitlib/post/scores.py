"""Which score ranks the instances: the box score, the mask score, both, or one learned from features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import ScoreKind
from kitlib.post.forest import Forest, grow
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
    hulls = np.array([_hull(crop) for crop in rle.crops(masks, boxes)])
    ratios = sides[:, 1] / sides[:, 0], areas / sides.prod(axis=1), areas / np.maximum(hulls, 1)
    return np.stack([np.log(areas + 1), *ratios], axis=1)


def _hull(crop: NDArray[np.bool_]) -> float:
    """The area of the convex hull of a mask's pixels, each a square of side 1."""
    y, x = np.nonzero(crop)
    if not len(y):
        return 0.0
    # Of each row the first and the last pixel are enough.
    first = np.flatnonzero(np.diff(y, prepend=-1))
    last = np.append(first[1:], len(y)) - 1
    y, left, right = y[first], x[first], x[last] + 1
    corners = np.concatenate([np.stack([c, r], axis=1) for c in (left, right) for r in (y, y + 1)])
    return cv2.contourArea(cv2.convexHull(corners.astype(np.int32)))


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
    if kind == "learned":
        if forest is None:
            raise KitError("score_kind 'learned' needs the trees that were fitted; take post.yaml whole")
        scores = forest.predict(features(frame)).clip(0, 1).tolist()
    else:
        scores = [_score(cell, kind) for cell in frame.cells]
    pairs = zip(frame.cells, scores, strict=True)
    return replace(frame, cells=tuple(c if c.score is None else replace(c, score=s) for c, s in pairs))


def learn(truth: Sequence[Frame], predictions: Sequence[Frame], seed: int = 0) -> Forest:
    """Trees that predict an instance's best IoU with any true cell from its ``features``.

    Args:
        truth: frames that the model which predicted did not train on.
        predictions: the same frames with all instances found in them.
        seed: draws the instances to learn from, and the trees' samples.
    """
    x = np.concatenate([np.zeros((0, len(NAMES))), *map(features, predictions)])
    y = np.concatenate([np.zeros(0), *map(_best_iou, truth, predictions)])
    chosen = np.random.default_rng(seed).permutation(len(x))[:_MOST]
    return grow(x[chosen], y[chosen], seed)


def _best_iou(truth: Frame, found: Frame) -> np.ndarray:
    return rle.iou([c.mask for c in truth.cells], [c.mask for c in found.cells]).max(axis=0, initial=0)


def _score(cell: Cell, kind: ScoreKind) -> float:
    mask = 1.0 if cell.mask_score is None else cell.mask_score
    return mask if kind == "mask" else mask * cell.confidence
