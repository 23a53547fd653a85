"""Which number ranks the instances of a frame: the box's score, the mask's, both, or a learned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from kitlib import rle
from kitlib.errors import KitError
from kitlib.post.features import NAMES, features
from kitlib.post.forest import Forest, grow
from kitlib.records import Cell, Frame

Kind = Literal["box", "mask", "product", "learned"]
MOST = 30_000  # instances to learn from; more are slow and tell nothing new


def rescore(frame: Frame, kind: Kind, forest: Forest | None = None) -> Frame:
    """The frame with the chosen score as each cell's score; annotated cells, which have none, stay so.

    Args:
        kind: "box" as predicted; "mask" the mean probability of the mask's pixels; "product" of both;
            "learned" the IoU that the forest expects. A mask score that is not known counts as 1.

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
    """Trees that tell an instance's best IoU with any true cell from its ``features``.

    Args:
        truth: frames that the model which predicted did not train on.
        predictions: the same frames with all instances found in them.
    """
    x = np.concatenate([np.zeros((0, len(NAMES))), *map(features, predictions)])
    y = np.concatenate([np.zeros(0), *map(_best_iou, truth, predictions)])
    chosen = np.random.default_rng(seed).permutation(len(x))[:MOST]
    return grow(x[chosen], y[chosen], seed)


def _best_iou(truth: Frame, found: Frame) -> np.ndarray:
    return rle.iou([c.mask for c in truth.cells], [c.mask for c in found.cells]).max(axis=0, initial=0)


def _score(cell: Cell, kind: Kind) -> float:
    mask = 1.0 if cell.mask_score is None else cell.mask_score
    return mask if kind == "mask" else mask * (1.0 if cell.score is None else cell.score)
