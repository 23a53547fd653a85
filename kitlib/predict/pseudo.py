"""Pseudo labels: confident predictions on unlabelled images, as new training frames.

Where an instance is not confident enough for a label, but may be a cell, training ignores the image: see
``Frame.ignore``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.predict.config import PseudoConfig
from kitlib.records import Cell, Frame

NOTHING_FOUND = "nothing found"
OTHER_CATEGORY = "cells of another type than the file name says"
TOO_FEW = "too few confident cells"


@dataclass(frozen=True)
class Report:
    """What became of the unlabelled images.

    Attributes:
        labelled: ids of the images that became training images.
        dropped: ids of the images that were dropped, by reason.
        cells: number of their cells, by category.
        images: number of these images, by category.
        doubtful: instances in these images that were not confident enough, too small or covered by others.
        ignored: share of these images' pixels that training ignores.
        relabelled: cells of these images that got the image's type in place of the predicted one.
    """

    labelled: tuple[str, ...]
    dropped: dict[str, tuple[str, ...]]
    cells: dict[str, int]
    images: dict[str, int]
    doubtful: int
    ignored: float
    relabelled: int


def select(
    unlabelled: Sequence[Frame], predictions: Sequence[Frame], config: PseudoConfig
) -> tuple[list[Frame], Report]:
    """Confident instances as training frames, without overlap, with their scores (so ``Frame.pseudo`` holds).

    An image holds one type of cell. Where the file name says which (``Frame.category``) and another one is
    predicted, the image is dropped: the model has hardly outlined cells well that it takes for others. In an
    image that is labelled, all cells get the predicted type.

    Args:
        unlabelled: frames with their image files, in the order in which the new frames come.
        predictions: all instances found in them, with scores, not post-processed, and the predicted type as
            ``Frame.category``; matched by id.
        config: which instances are confident, and the weight of the new frames.

    Raises:
        KitError: a prediction for an image that is not among the unlabelled ones.
    """
    predicted = {f.id: f for f in predictions}
    unknown = sorted(predicted.keys() - {f.id for f in unlabelled})
    if unknown:
        raise KitError(
            f"predictions for '{unknown[0]}', which is not an unlabelled image; predict the same images"
        )
    post = PostConfig(
        score_threshold=config.score_threshold,
        min_area=config.min_area,
        max_area=config.max_area,
        keep_best=False,
    )
    frames: list[Frame] = []
    dropped: dict[str, list[str]] = {NOTHING_FOUND: [], OTHER_CATEGORY: [], TOO_FEW: []}
    relabelled = doubtful = 0
    for bare in unlabelled:
        found = predicted.get(bare.id, replace(bare, cells=(), category=None))
        if found.category is None or not found.cells:
            dropped[NOTHING_FOUND].append(bare.id)
            continue
        agreed = _agreed(found, config.agreement)
        frame = thresholds.apply(replace(bare, cells=agreed, category=found.category), post)
        reason = _fault(bare, found, agreed, len(frame.cells), config)
        if reason:
            dropped[reason].append(bare.id)
            continue
        relabelled += sum(c.category != found.category for c in frame.cells)
        doubtful += len(found.cells) - len(frame.cells)
        same = tuple(replace(c, category=found.category) for c in frame.cells)
        weight = config.loss_weight * (
            np.mean([c.confidence for c in same]) if config.weight_by_score else 1.0
        )
        lowest = _of_type(config.ignore_threshold, found.category)
        maybe = [c.mask for c in found.cells if c.confidence >= lowest]
        ignore = _uncertain_area(maybe, [c.mask for c in same])
        frames.append(replace(frame, cells=same, weight=float(weight), ignore=ignore))
    report = Report(
        labelled=tuple(f.id for f in frames),
        dropped={reason: tuple(ids) for reason, ids in dropped.items()},
        cells=dict(Counter(c.category for f in frames for c in f.cells)),
        images=dict(Counter(f.category for f in frames if f.category)),
        doubtful=doubtful,
        ignored=_ignored_share(frames),
        relabelled=relabelled,
    )
    return frames, report


def _fault(
    bare: Frame, found: Frame, agreed: Sequence[Cell], labels: int, config: PseudoConfig
) -> str | None:
    """Why an image is dropped; None if it is labelled."""
    if agreed and bare.category not in (None, found.category):
        return OTHER_CATEGORY
    return TOO_FEW if labels < max(config.min_cells, 1) else None


def _of_type(thresholds_by_type: dict[str, float], category: str | None) -> float:
    return thresholds_by_type.get(category or "default", thresholds_by_type["default"])


def _agreed(found: Frame, least: dict[str, float]) -> tuple[Cell, ...]:
    """The cells that enough models and views saw."""
    share = _of_type(least, found.category)
    return tuple(c for c in found.cells if c.agreement is None or c.agreement >= share)


def _uncertain_area(maybe: Sequence[RLE], labels: Sequence[RLE]) -> RLE | None:
    """The boxes of instances that may be cells, without the pixels of pseudo labels; None if nothing is left.

    Boxes, because training takes boxes for cells or for background. An instance that lies by half or more on
    pseudo labels is one of them, seen twice.
    """
    labelled = rle.to_mask(rle.merge(labels))
    uncertain = np.zeros_like(labelled)
    boxes = rle.boxes(maybe)
    for (x0, y0, x1, y1), mask in zip(boxes.tolist(), rle.crops(maybe, boxes), strict=True):
        here = slice(y0, y1), slice(x0, x1)
        if 2 * np.count_nonzero(labelled[here] & mask) < np.count_nonzero(mask):
            uncertain[here] = True
    uncertain &= ~labelled
    return rle.from_mask(uncertain) if uncertain.any() else None


def _ignored_share(frames: Sequence[Frame]) -> float:
    ignored = rle.areas([f.ignore for f in frames if f.ignore]).sum()
    return float(ignored / max(sum(f.height * f.width for f in frames), 1))
