"""True and predicted cells of an image that overlap, and how many of them match at each IoU threshold.

A prediction and a true cell match when their IoU is greater than the threshold (strictly). Annotations
overlap, so a cell may have several candidates: matches are one to one and as many as possible (a maximum
matching), whatever the order of the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.masks.rle import RLE

#: 0.50, 0.55, ..., 0.95 as the doubles nearest to them: an IoU of exactly 11/20 does not pass 0.55.
THRESHOLDS: NDArray[np.float64] = np.arange(10, 20) / 20
# Pairs of true and predicted cells whose IoUs are in memory at a time.
PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Pairs:
    """Pairs of a true and a predicted cell of one image that have pixels in common, (K,) each.

    Attributes:
        true: places of the true cells, ascending.
        predicted: places of the predicted cells, ascending for each true cell.
        iou: intersection over union, above 0.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    iou: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        """The pairs that a mask (K,) chooses."""
        return Pairs(self.true[chosen], self.predicted[chosen], self.iou[chosen])

    def alone(self) -> NDArray[np.bool_]:
        """Which pairs share neither of their cells with another pair, (K,)."""
        once = [np.bincount(column, minlength=1)[column] == 1 for column in (self.true, self.predicted)]
        return once[0] & once[1]


def pairs(truth: Sequence[RLE], predicted: Sequence[RLE]) -> Pairs:
    """The pairs of an image's cells that overlap; its IoUs are never in memory all together."""
    number = max(PAIRS_AT_ONCE // max(len(predicted), 1), 1)
    parts = []
    for start in range(0, max(len(truth), 1), number):
        part = of_matrix(rle.iou(truth[start : start + number], predicted))
        parts.append((part.true + start, part.predicted, part.iou))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def of_matrix(iou: NDArray) -> Pairs:
    """The pairs of an IoU matrix (T, P) whose IoU is above 0."""
    true, predicted = np.nonzero(iou)
    return Pairs(true, predicted, iou[true, predicted])


def true_positives(found: Pairs) -> NDArray[np.int64]:
    """The size of the largest one-to-one matching at each of the ten thresholds, (10,)."""
    found = found.where(found.iou > THRESHOLDS[0])
    alone = found.alone()
    number = (found.iou[alone, None] > THRESHOLDS).sum(axis=0)
    return number if alone.all() else number + _largest(found.where(~alone))


def matched(found: Pairs) -> Pairs:
    """The pairs that match at 0.5: of the matchings with the most pairs the one with the highest sum of IoUs.

    Without overlap among the true and among the predicted cells, every pair above 0.5 matches.
    """
    found = found.where(found.iou > THRESHOLDS[0])
    chosen = found.alone()
    if not chosen.all():
        chosen[~chosen] = _highest_sum(found.where(~chosen))
    return found.where(chosen)


def _highest_sum(found: Pairs) -> NDArray[np.bool_]:
    """Which pairs are in that matching, (K,)."""
    # Imported here: it takes longer than to score hundreds of images in which cells hardly overlap.
    from scipy.optimize import linear_sum_assignment

    true, rows = np.unique(found.true, return_inverse=True)
    predicted, columns = np.unique(found.predicted, return_inverse=True)
    iou = np.zeros((len(true), len(predicted)))
    iou[rows, columns] = found.iou
    # One more match is worth more than the highest IoUs of all others.
    assigned = linear_sum_assignment(np.where(iou > 0, iou + min(iou.shape), 0), maximize=True)
    matches = np.zeros(iou.shape, bool)
    matches[assigned] = True
    return matches[rows, columns]


def _largest(found: Pairs) -> NDArray[np.int64]:
    """The size of the largest matching of the pairs above each threshold, (10,).

    The highest threshold comes first: the next one, which has more edges, begins with its matching. scipy has
    the same, but takes longer to import than it takes to score 500 images without it.
    """
    rows, columns, values = found.true, found.predicted, found.iou
    neighbours: dict[int, list[int]] = {}
    # The row of each matched column.
    partner: dict[int, int] = {}
    sizes = []
    passed = np.zeros(len(values), bool)
    for threshold in THRESHOLDS[::-1]:
        new = (values > threshold) & ~passed
        passed |= new
        for row, column in zip(rows[new].tolist(), columns[new].tolist(), strict=True):
            neighbours.setdefault(row, []).append(column)
        dead: set[int] = set()
        for row in neighbours.keys() - set(partner.values()):
            _augment(row, neighbours, partner, dead)
        sizes.append(len(partner))
    return np.array(sizes[::-1])


def _augment(row: int, neighbours: dict[int, list[int]], partner: dict[int, int], dead: set[int]) -> None:
    """Match one more row if there is an augmenting path from it, found breadth first.

    Args:
        row: without a match.
        neighbours: the columns of each row's edges.
        partner: the row of each matched column; changed.
        dead: columns from which no path leads to a free column; the columns of a search in vain are added.
    """
    # Each column on a path, and the row before it.
    reached: dict[int, int] = {}
    # Each row on a path, and the column that it is matched with now.
    present: dict[int, int | None] = {row: None}
    queue = [row]
    for reaching in queue:
        for column in neighbours[reaching]:
            if column in reached or column in dead:
                continue
            reached[column] = reaching
            if column not in partner:
                _take(column, reached, present, partner)
                return
            present[partner[column]] = column
            queue.append(partner[column])
    dead.update(reached)


def _take(
    column: int | None, reached: dict[int, int], present: dict[int, int | None], partner: dict[int, int]
) -> None:
    """Exchange matched and unmatched edges along the path that ends in a free ``column``."""
    while column is not None:
        row = partner[column] = reached[column]
        column = present[row]
