"""The competition's metric: precision at ten IoU thresholds, averaged over thresholds and then over images.

Per image and threshold t the precision is TP / (TP + FP + FN), where a prediction and a true cell match
when their IoU is greater than t (strictly). Types play no part. Annotations overlap, so a cell may have
several candidates: matches are one to one and as many as possible (a maximum matching), whatever the order
of the cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib import rle
from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.rle import RLE

#: 0.50, 0.55, ..., 0.95 as the doubles nearest to them: an IoU of exactly 11/20 does not pass 0.55.
THRESHOLDS: NDArray[np.float64] = np.arange(10, 20) / 20


class Counts(NamedTuple):
    """Matches of all images at one IoU threshold."""

    threshold: float
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class Score:
    """The metric and its parts.

    Attributes:
        mean: the competition's number, 0..1.
        by_image: mean precision of each image by id.
        by_category: mean over the images of each type.
        by_threshold: mean over the images at each IoU threshold.
        counts: true positives, false positives and false negatives of all images at each threshold.
    """

    mean: float
    by_image: dict[str, float]
    by_category: dict[str, float]
    by_threshold: dict[float, float]
    counts: tuple[Counts, ...]


def score(truth: Sequence[Frame], predictions: Sequence[Frame]) -> Score:
    """Score predictions against the truth.

    Args:
        truth: frames with their annotated cells; these are the images that count.
        predictions: frames with predicted cells, matched by id. A missing frame has no predictions.

    Raises:
        KitError: no true frames, or a prediction for an image that is not among them or of another size.
    """
    if not truth:
        raise KitError("there is no true frame to score against; give at least one annotated image")
    found = {frame.id: [cell.mask for cell in frame.cells] for frame in predictions}
    extra = sorted(found.keys() - {frame.id for frame in truth})
    if extra:
        raise KitError(
            f"predictions for {len(extra)} images without truth, the first is '{extra[0]}'; remove them"
        )
    _check_sizes(truth, predictions)
    sizes = np.array([(len(frame.cells), len(found.get(frame.id, ()))) for frame in truth])
    tp = np.stack([true_positives([c.mask for c in frame.cells], found.get(frame.id, ())) for frame in truth])
    precisions = precision(tp, sizes[:, :1], sizes[:, 1:])
    by_image = precisions.mean(axis=1)
    totals, (cells, predicted) = tp.sum(axis=0), sizes.sum(axis=0)
    return Score(
        mean=float(by_image.mean()),
        by_image={frame.id: float(value) for frame, value in zip(truth, by_image, strict=True)},
        by_category=_by_category(truth, by_image),
        by_threshold=dict(zip(THRESHOLDS.tolist(), precisions.mean(axis=0).tolist(), strict=True)),
        counts=tuple(
            Counts(float(t), int(n), int(predicted - n), int(cells - n))
            for t, n in zip(THRESHOLDS, totals, strict=True)
        ),
    )


def _check_sizes(truth: Iterable[Frame], predictions: Iterable[Frame]) -> None:
    sizes = {frame.id: (frame.height, frame.width) for frame in truth}
    for frame in predictions:
        if sizes[frame.id] != (frame.height, frame.width):
            height, width = sizes[frame.id]
            raise KitError(
                f"the predictions for image '{frame.id}' are of a frame {frame.width} wide, {frame.height} "
                f"high, but the true one is {width} wide, {height} high; predict it at its own size"
            )


def precision(tp: NDArray, cells: NDArray | int, predicted: NDArray | int) -> NDArray[np.float64]:
    """TP / (TP + FP + FN) from matches and numbers of true and predicted cells; 1 where there is neither."""
    union = np.asarray(cells) + predicted - tp
    return np.where(union == 0, 1.0, tp / np.maximum(union, 1))


def true_positives(truth: Sequence[RLE], predicted: Sequence[RLE]) -> NDArray[np.int64]:
    """The number of matched pairs of one image at each of the ten thresholds, (10,)."""
    return matches(rle.iou(truth, predicted))


def matches(iou: NDArray) -> NDArray[np.int64]:
    """The largest one-to-one matching of an IoU matrix (T, P) at each of the ten thresholds, (10,)."""
    rows, columns = np.nonzero(iou > THRESHOLDS[0])
    values = iou[rows, columns]
    alone = (np.bincount(rows, minlength=1)[rows] == 1) & (np.bincount(columns, minlength=1)[columns] == 1)
    number = (values[alone, None] > THRESHOLDS).sum(axis=0)
    return number if alone.all() else number + _largest(rows[~alone], columns[~alone], values[~alone])


def _largest(rows: NDArray, columns: NDArray, values: NDArray) -> NDArray[np.int64]:
    """The size of the largest matching of a graph's edges above each threshold, (10,).

    The highest threshold comes first: its matching is where the next one, which has more edges, goes on.
    scipy has the same, but takes longer to import than it takes to score 500 images without it.
    """
    neighbours: dict[int, list[int]] = {}
    partner: dict[int, int] = {}  # of each matched column its row
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
        dead: columns from which no path leads to a free one; those of a search in vain are added.
    """
    reached: dict[int, int] = {}  # each column on a path, and the row before it
    present: dict[int, int | None] = {row: None}  # each row on a path, and the column that it has now
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


def _by_category(truth: Iterable[Frame], by_image: NDArray) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for frame, value in zip(truth, by_image, strict=True):
        values.setdefault(frame.category or "unknown", []).append(float(value))
    return {category: float(np.mean(values[category])) for category in sorted(values)}
