"""From what was decided to be in a frame to cells with masks in the frame's own pixels.

Soft masks are pasted box by box straight to run lengths: nothing here is as large as the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections
from kitlib.predict.fuse import Fused
from kitlib.predict.paste import Patch, paste
from kitlib.records import Cell


class Vote(NamedTuple):
    """What a cell without a mask yet says about its frame's type."""

    category: str
    score: float


class Outlined(NamedTuple):
    """A cell whose mask is not encoded yet: its runs' edges; category, score, mask score and agreement."""

    edges: NDArray[np.int64]
    facts: tuple[str, float, float, float]


def to_cells(
    found: Detections, fused: Fused, size: tuple[int, int], config: PredictConfig, categories: Sequence[str]
) -> list[tuple[Cell, ...]]:
    """The cells of a frame, best first; they may overlap.

    Args:
        size: (height, width) of the frame.

    Returns:
        The cells at the mask threshold of the type that they vote for, then at each of
        ``config.candidate_mask_thresholds``. A cell without a pixel above the threshold is left out.
    """
    order = fused.best(config.score_floor, config.max_cells)
    names = [categories[c] for c in fused.classes[order].tolist()]
    scores, agreement = fused.scores[order].tolist(), fused.agreement[order].tolist()
    voted = thresholds.vote([Vote(*v) for v in zip(names, scores, strict=True)])
    levels = (config.mask_threshold_of(voted), *config.candidate_mask_thresholds)
    tables: list[list[Outlined]] = [[] for _ in levels]
    for i, name, score, share in zip(order.tolist(), names, scores, agreement, strict=True):
        patch = soft_mask(found, fused.members[i], *size)
        for table, level in zip(tables, levels, strict=True):
            inside = patch.values >= level
            sure = patch.values[inside]
            if len(sure):
                edges = rle.crop_edges(inside, patch.x, patch.y, *size)
                table.append(Outlined(edges, (name, score, float(sure.sum() / len(sure)), share)))
    return [_encoded(table, size) for table in tables]


def _encoded(table: Sequence[Outlined], size: tuple[int, int]) -> tuple[Cell, ...]:
    """The cells with their masks, all encoded in one go."""
    masks = rle.from_edges([cell.edges for cell in table], *size)
    return tuple(Cell(mask, *cell.facts) for mask, cell in zip(masks, table, strict=True))


def soft_mask(found: Detections, members: NDArray[np.int64], height: int, width: int) -> Patch:
    """The mean of the members' probabilities, weighted by their scores, over the union of their boxes.

    They are averaged pixel by pixel in the frame, where a pixel outside a member's box counts 0: to resample
    each into the fused box first would blur it twice.
    """
    patches = [paste(found.squares[i], found.boxes[i], height, width) for i in members]
    if len(patches) == 1:
        return patches[0]
    left, top = min(p.x for p in patches), min(p.y for p in patches)
    right = max(p.x + p.values.shape[1] for p in patches)
    bottom = max(p.y + p.values.shape[0] for p in patches)
    total: NDArray[np.float32] = np.zeros((bottom - top, right - left), np.float32)
    weights = found.scores[members] / found.scores[members].sum()
    for patch, weight in zip(patches, weights.tolist(), strict=True):
        h, w = patch.values.shape
        total[patch.y - top : patch.y - top + h, patch.x - left : patch.x - left + w] += weight * patch.values
    return Patch(left, top, total)
