"""One frame as the front end gets it: numbers for people, columns about cells, and packed outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from kitlib import metric
from kitlib.masks import rle
from kitlib.metric import matching
from kitlib.records import Cell
from kitlib.viewer import outlines
from kitlib.viewer.layers import Removed

MATCHED, WRONG, MISSED = "matched", "wrong", "missed"


@dataclass(frozen=True)
class FrameMatch:
    """Annotated and predicted cells of a frame beside each other.

    Attributes:
        iou: (T, P) of each annotated with each predicted cell.
        partner: (T,) the predicted cell that each annotated one is matched with at an IoU above 0.5, or -1.
        score: the competition's metric.
    """

    iou: NDArray[np.float64]
    partner: NDArray[np.int64]
    score: float

    @property
    def pairs(self) -> int:
        """The number of matched pairs."""
        return int((self.partner >= 0).sum())

    @property
    def disagreement(self) -> int:
        """The number of cells without a partner, annotated and predicted ones together."""
        return sum(self.iou.shape) - 2 * self.pairs


def match(annotated: Sequence[Cell], predicted: Sequence[Cell]) -> FrameMatch:
    """Match the cells of a frame one to one, as many as possible, and score them."""
    iou = rle.iou([c.mask for c in annotated], [c.mask for c in predicted])
    tp = matching.true_positives(matching.of_matrix(iou))
    precision = metric.precision(tp, len(annotated), len(predicted))
    return FrameMatch(iou, _partners(iou), float(precision.mean()))


def _partners(iou: NDArray[np.float64]) -> NDArray[np.int64]:
    if not iou.size:
        return np.full(len(iou), -1)
    hits = csr_array(iou > metric.THRESHOLDS[0])
    return maximum_bipartite_matching(hits, perm_type="column").astype(np.int64)


def describe(
    cells: Sequence[Cell], best_iou: NDArray[np.float64] | None = None, states: Sequence[str] | None = None
) -> dict[str, Any]:
    """Columns about the cells of a layer, in their order.

    Args:
        cells: N cells.
        best_iou: (N,) the highest IoU with a cell of the other side; None where there is no other side.
        states: (N,) a word for each, such as "matched" or why it was removed; None for no words.
    """
    return {
        "type": [cell.category for cell in cells],
        "score": [None if cell.score is None else round(cell.score, 4) for cell in cells],
        "area": rle.areas([cell.mask for cell in cells]).tolist(),
        "iou": None if best_iou is None else best_iou.round(3).tolist(),
        "state": [""] * len(cells) if states is None else list(states),
        "boxes": rle.boxes([cell.mask for cell in cells]).ravel().tolist(),
    }


def compared(
    annotated: Sequence[Cell], predicted: Sequence[Cell], found: FrameMatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of both sides of a comparison: the annotated and the predicted cells."""
    is_found = found.partner >= 0
    right = np.isin(np.arange(len(predicted)), found.partner)
    best = found.iou.max(axis=1, initial=0), found.iou.max(axis=0, initial=0)
    return (
        describe(annotated, best[0], np.where(is_found, MATCHED, MISSED).tolist()),
        describe(predicted, best[1], np.where(right, MATCHED, WRONG).tolist()),
    )


def removed_columns(removed: Sequence[Removed], annotated: Sequence[Cell] | None) -> dict[str, Any]:
    """The columns of removed cells: the state is the reason."""
    cells = [each.cell for each in removed]
    best = None
    if annotated is not None:
        best = rle.iou([c.mask for c in cells], [c.mask for c in annotated]).max(axis=1, initial=0)
    return describe(cells, best, [each.reason for each in removed])


def packed(cells: Sequence[Cell]) -> bytes:
    """The outlines of cells, see ``outlines.pack``."""
    return outlines.pack([cell.mask for cell in cells])
