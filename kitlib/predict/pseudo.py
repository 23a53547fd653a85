"""Pseudo labels: what a model is sure of on unlabelled images, as new training frames.

What it is neither sure of nor sure to be nothing is ignored: see ``Frame.ignore``.
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
        kept: ids of the images that were kept.
        dropped: ids of the images that were dropped, by reason.
        cells: number of cells kept, by category.
        images: number of images kept, by category.
        doubtful: cells of the kept images that were not confident enough, too small or covered by others.
        ignored: share of the kept images' pixels that training ignores.
        relabelled: cells of the kept images that got the type of their image in place of the predicted one.
    """

    kept: tuple[str, ...]
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

    An image holds one type of cell. Where the file name tells it (``Frame.category``) and the predictions
    vote for another, the image is dropped: what the model takes for something else, it has hardly outlined
    well. In an image that is kept, all cells get the image's type. Without a type in the file name the vote
    decides.

    Args:
        unlabelled: frames with their image files, in the order in which the new frames come.
        predictions: all instances found in them, with scores, not post-processed; matched by id.

    Raises:
        KitError: a prediction for an image that is not among the unlabelled ones.
    """
    found = {f.id: f for f in predictions}
    strangers = sorted(found.keys() - {f.id for f in unlabelled})
    if strangers:
        raise KitError(
            f"predictions for '{strangers[0]}', which is not an unlabelled image; predict the same images"
        )
    post = PostConfig(
        score=config.score_threshold, min_area=config.min_area, max_area=config.max_area, keep_best=False
    )
    frames: list[Frame] = []
    dropped: dict[str, list[str]] = {NOTHING_FOUND: [], OTHER_CATEGORY: [], TOO_FEW: []}
    relabelled = doubtful = 0
    for bare in unlabelled:
        cells = found[bare.id].cells if bare.id in found else ()
        agreed = _agreed(cells, config.agreement, bare.category or thresholds.vote(cells))
        frame = thresholds.apply(replace(bare, cells=agreed), post)
        reason = _fault(bare, frame, cells, config)
        if reason:
            dropped[reason].append(bare.id)
            continue
        relabelled += sum(c.category != frame.category for c in frame.cells)
        doubtful += len(cells) - len(frame.cells)
        same = tuple(replace(c, category=frame.category) for c in frame.cells)
        weight = config.loss_weight * (np.mean([c.score for c in same]) if config.weight_by_score else 1.0)
        maybe = [c.mask for c in cells if c.score >= _limit(config.ignore_threshold, frame.category)]
        ignore = _unsure(maybe, [c.mask for c in same])
        frames.append(replace(frame, cells=same, weight=float(weight), ignore=ignore))
    report = Report(
        kept=tuple(f.id for f in frames),
        dropped={reason: tuple(ids) for reason, ids in dropped.items()},
        cells=dict(Counter(c.category for f in frames for c in f.cells)),
        images=dict(Counter(f.category for f in frames)),
        doubtful=doubtful,
        ignored=_ignored_share(frames),
        relabelled=relabelled,
    )
    return frames, report


def _fault(bare: Frame, frame: Frame, cells: Sequence, config: PseudoConfig) -> str | None:
    """Why an image is not kept; None if it is."""
    if not cells:
        return NOTHING_FOUND
    if frame.category and bare.category not in (None, frame.category):
        return OTHER_CATEGORY
    return TOO_FEW if len(frame.cells) < max(config.min_cells, 1) else None


def _limit(limits: dict[str, float], category: str | None) -> float:
    return limits.get(category or "default", limits["default"])


def _agreed(cells: Sequence[Cell], limits: dict[str, float], category: str | None) -> tuple[Cell, ...]:
    least = _limit(limits, category)
    return tuple(c for c in cells if c.agreement is None or c.agreement >= least)


def _unsure(maybe: Sequence[RLE], believed: Sequence[RLE]) -> RLE | None:
    """The boxes of what may be cells, without the pixels of believed ones; None if nothing is left.

    Boxes, as it is boxes that training takes for a cell or for background. A mask that lies by half or more
    on believed cells is one of them, seen twice.
    """
    taken = rle.to_mask(rle.merge(believed))
    unsure = np.zeros_like(taken)
    boxes = rle.boxes(maybe)
    for (x0, y0, x1, y1), mask in zip(boxes.tolist(), rle.crops(maybe, boxes), strict=True):
        here = slice(y0, y1), slice(x0, x1)
        if 2 * np.count_nonzero(taken[here] & mask) < np.count_nonzero(mask):
            unsure[here] = True
    unsure &= ~taken
    return rle.from_mask(unsure) if unsure.any() else None


def _ignored_share(frames: Sequence[Frame]) -> float:
    ignored = rle.areas([f.ignore for f in frames if f.ignore]).sum()
    return float(ignored / max(sum(f.height * f.width for f in frames), 1))
