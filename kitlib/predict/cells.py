"""From a frame's fused detections to its type and its cells, with masks in the frame's own pixels.

Soft masks are pasted box by box straight to run lengths: nothing here is as large as the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.data.tables import SCORE_DECIMALS
from kitlib.masks import rle
from kitlib.predict import fuse
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections, Patch, paste
from kitlib.predict.fuse import Fused
from kitlib.records import Cell, Frame, voted_category

# Instances whose masks are outlined, and not yet encoded, at a time.
_AT_ONCE = 1000


class Prediction(NamedTuple):
    """What is predicted in an image.

    Attributes:
        category: the type of its cells; None without any.
        tables: the cells, best first, at the mask threshold of that type, then at each candidate.
        limited: whether there were as many instances as ``max_cells`` allows, so that some may be missing.
    """

    category: str | None
    tables: list[tuple[Cell, ...]]
    limited: bool = False

    def frames(self, frame: Frame) -> list[Frame]:
        """The frame with the predicted type and cells in place of its own, once for each table."""
        return [replace(frame, cells=cells, category=self.category) for cells in self.tables]


@dataclass(frozen=True)
class Seen:
    """What networks detect in an image: all that its cells are made of.

    Attributes:
        found: the detections of all sources, in the image's pixels.
        sources: how many there are: each model with each scale and orientation.
        alone: whether one network saw it, once and whole, so that there is nothing to fuse.
        size: (height, width) of the image.
        config: how it is predicted.
        categories: class names, in the order of the classes.
        limited: whether ``max_cells`` may have left out some of a view.
        reduced: what there was no memory for.
    """

    found: Detections
    sources: int
    alone: bool
    size: tuple[int, int]
    config: PredictConfig
    categories: tuple[str, ...]
    limited: bool
    reduced: str = ""


def make(seen: Seen, faint: Seen | None = None) -> Prediction:
    """The type and the cells of an image.

    Args:
        seen: what was detected in it.
        faint: the same at any score, from which a table without a cell gets the best one.
    """
    if faint is not None:
        found, anything = make(seen), make(faint)
        tables = [cells or best[:1] for cells, best in zip(found.tables, anything.tables, strict=True)]
        return Prediction(anything.category, tables)
    if seen.alone:
        fused = fuse.alone(seen.found)
    else:
        fused = fuse.fuse(seen.found, seen.sources, seen.size, seen.config)
    number = int(np.count_nonzero(fused.scores >= seen.config.score_floor))
    prediction = to_cells(seen.found, fused, seen.size, seen.config, seen.categories)
    return prediction._replace(limited=seen.limited or number > seen.config.max_cells)


class _Outlined(NamedTuple):
    """A cell whose mask is not encoded yet: its runs' edges; category, score, mask score and agreement."""

    edges: NDArray[np.int64]
    facts: tuple[str, float, float, float]


def to_cells(
    found: Detections, fused: Fused, size: tuple[int, int], config: PredictConfig, categories: Sequence[str]
) -> Prediction:
    """The type and the cells of a frame; the cells may overlap.

    Args:
        found: the detections.
        fused: the instances that they make up.
        size: (height, width) of the frame.
        config: mask thresholds, the lowest score and the highest number of instances.
        categories: class names, in the order of the classes.

    Returns:
        A cell without a pixel above a mask threshold is left out of its table.
    """
    order = fused.best(config.score_floor, config.max_cells)
    names = [categories[c] for c in fused.classes[order].tolist()]
    scores, agreement = _rounded(fused.scores[order]), _rounded(fused.agreement[order])
    category = voted_category(zip(names, scores, strict=True))
    mask_thresholds = (config.mask_threshold_of(category), *config.candidate_mask_thresholds)
    tables: list[list[Cell]] = [[] for _ in mask_thresholds]
    facts = list(zip(order.tolist(), names, scores, agreement, strict=True))
    for start in range(0, len(facts), _AT_ONCE):
        part = _outlined(found, fused, facts[start : start + _AT_ONCE], size, mask_thresholds)
        for table, outlined in zip(tables, part, strict=True):
            table += _encoded(outlined, size)
    return Prediction(category, [tuple(table) for table in tables])


def _outlined(
    found: Detections,
    fused: Fused,
    facts: Sequence[tuple[int, str, float, float]],
    size: tuple[int, int],
    mask_thresholds: Sequence[float],
) -> list[list[_Outlined]]:
    """Some instances at each mask threshold, without those that have no pixel above it.

    Args:
        found, fused, size: as for ``to_cells``.
        facts: number, category, score and agreement of each.
        mask_thresholds: the least probability of a pixel in a mask.
    """
    tables: list[list[_Outlined]] = [[] for _ in mask_thresholds]
    for i, name, score, share in facts:
        patch = soft_mask(found, fused.members[i], *size)
        for table, mask_threshold in zip(tables, mask_thresholds, strict=True):
            inside = patch.values >= mask_threshold
            values = patch.values[inside]
            if len(values):
                edges = rle.crop_edges(inside, patch.x, patch.y, *size)
                mask_score = round(float(values.sum() / len(values)), SCORE_DECIMALS)
                table.append(_Outlined(edges, (name, score, mask_score, share)))
    return tables


def _rounded(scores: NDArray) -> list[float]:
    """Scores as a table of predictions gives them back."""
    return [round(score, SCORE_DECIMALS) for score in scores.tolist()]


def _encoded(table: Sequence[_Outlined], size: tuple[int, int]) -> list[Cell]:
    """The cells with their masks, all encoded in one go."""
    masks = rle.from_edges([cell.edges for cell in table], *size)
    return [Cell(mask, *cell.facts) for mask, cell in zip(masks, table, strict=True)]


def soft_mask(found: Detections, members: NDArray[np.int64], height: int, width: int) -> Patch:
    """The mean of some detections' probabilities, weighted by their scores, over the union of their boxes.

    They are averaged pixel by pixel in the frame, where a pixel outside a member's box counts 0: to resample
    each into the fused box first would blur it twice.

    Args:
        found: all detections of the frame.
        members: (M,) indices of those that make up the instance.
        height: of the frame.
        width: of the frame.
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
