"""The competition's metric: precision at ten IoU thresholds, averaged over thresholds and then over images.

Per image and threshold t the precision is TP / (TP + FP + FN), where a prediction and a true cell match
when their IoU is greater than t (strictly). Types play no part. Annotations overlap, so a cell may have
several candidates: matches are one to one and as many as possible (a maximum matching), whatever the order
of the cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.records import Frame

#: 0.50, 0.55, ..., 0.95 as the doubles nearest to them: an IoU of exactly 11/20 does not pass 0.55.
THRESHOLDS: NDArray[np.float64] = np.arange(10, 20) / 20
# Pairs of true and predicted cells whose IoUs are in memory at a time.
PAIRS_AT_ONCE = 1 << 22
# Means that are drawn for an interval.
_ROUNDS = 4000


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
    truth = list(truth)
    found = {frame.id: frame for frame in predictions}
    _refuse_extra(found.keys() - {frame.id for frame in truth})
    tally = _Tally()
    for place, frame in enumerate(truth):
        tally.add(place, frame, found.get(frame.id))
    return tally.score()


def score_in_step(truth: Iterable[Frame], predictions: Iterable[Frame]) -> Score:
    """As ``score``, of frames that are read while they are scored, each id once.

    A frame waits in memory until its partner has been read: a few frames where both have the same order.

    Raises:
        KitError: as ``score``.
    """
    tally = _Tally()
    waiting: dict[str, tuple[int, Frame]] = {}
    found: dict[str, Frame] = {}
    for place, (frame, predicted) in enumerate(itertools.zip_longest(truth, predictions)):
        if frame is not None:
            waiting[frame.id] = place, frame
        if predicted is not None:
            found[predicted.id] = predicted
        for name in {each.id for each in (frame, predicted) if each is not None}:
            if name in waiting and name in found:
                tally.add(*waiting.pop(name), found.pop(name))
    _refuse_extra(found.keys())
    for place, frame in waiting.values():
        tally.add(place, frame, None)
    return tally.score()


def _refuse_extra(ids: Iterable[str]) -> None:
    extra = sorted(ids)
    if extra:
        raise KitError(
            f"predictions for {len(extra)} images without truth, the first is '{extra[0]}'; remove them"
        )


class _Image(NamedTuple):
    """What counts of one image: its matches at each threshold (10,) and its numbers of cells."""

    frame_id: str
    category: str
    tp: NDArray[np.int64]
    cells: int
    predicted: int


class _Tally:
    """Images that were scored one after the other, by their place in the result."""

    def __init__(self) -> None:
        self._images: dict[int, _Image] = {}

    def add(self, place: int, truth: Frame, predicted: Frame | None) -> None:
        if predicted is not None:
            _check_size(truth, predicted)
        masks = [cell.mask for cell in predicted.cells] if predicted else []
        tp = true_positives([cell.mask for cell in truth.cells], masks)
        category = truth.category or "unknown"
        self._images[place] = _Image(truth.id, category, tp, len(truth.cells), len(masks))

    def score(self) -> Score:
        if not self._images:
            raise KitError("there is no true frame to score against; give at least one annotated image")
        images = [self._images[place] for place in sorted(self._images)]
        ids, categories, tp, cells, predicted = zip(*images, strict=True)
        precisions = precision(np.stack(tp), np.array(cells)[:, None], np.array(predicted)[:, None])
        by_image = precisions.mean(axis=1)
        totals = np.sum(tp, axis=0)
        return Score(
            mean=float(by_image.mean()),
            by_image=dict(zip(ids, by_image.tolist(), strict=True)),
            by_category=_by_category(categories, by_image),
            by_threshold=dict(zip(THRESHOLDS.tolist(), precisions.mean(axis=0).tolist(), strict=True)),
            counts=tuple(
                Counts(float(t), int(n), int(sum(predicted) - n), int(sum(cells) - n))
                for t, n in zip(THRESHOLDS, totals, strict=True)
            ),
        )


def _check_size(truth: Frame, predicted: Frame) -> None:
    if (truth.height, truth.width) != (predicted.height, predicted.width):
        raise KitError(
            f"the predictions for image '{truth.id}' are of a frame {predicted.width} wide, "
            f"{predicted.height} high, but the true one is {truth.width} wide, {truth.height} high; "
            "predict it at its own size"
        )


def precision(tp: NDArray, cells: NDArray | int, predicted: NDArray | int) -> NDArray[np.float64]:
    """TP / (TP + FP + FN); 1 where there is neither a true nor a predicted cell.

    Args:
        tp: matched pairs, of any shape.
        cells: true cells, of a shape that fits to ``tp``.
        predicted: predicted cells, of a shape that fits to ``tp``.

    Example:
        >>> float(precision(np.array(2), cells=3, predicted=3))
        0.5
    """
    union = np.asarray(cells) + predicted - tp
    return np.where(union == 0, 1.0, tp / np.maximum(union, 1))


def true_positives(truth: Sequence[RLE], predicted: Sequence[RLE]) -> NDArray[np.int64]:
    """The number of matched pairs of one image at each of the ten thresholds, (10,)."""
    number = max(PAIRS_AT_ONCE // max(len(predicted), 1), 1)
    starts = range(0, max(len(truth), 1), number)
    parts = [_candidates(rle.iou(truth[start : start + number], predicted), start) for start in starts]
    return _count(*(parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))))


def matches(iou: NDArray) -> NDArray[np.int64]:
    """The largest one-to-one matching of an IoU matrix (T, P) at each of the ten thresholds, (10,)."""
    return _count(*_candidates(iou))


def _candidates(iou: NDArray, first_row: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """Rows, columns and IoUs of the pairs above the lowest threshold."""
    rows, columns = np.nonzero(iou > THRESHOLDS[0])
    return rows + first_row, columns, iou[rows, columns]


def _count(rows: NDArray, columns: NDArray, values: NDArray) -> NDArray[np.int64]:
    """``matches`` of the pairs that ``_candidates`` gives."""
    alone = (np.bincount(rows, minlength=1)[rows] == 1) & (np.bincount(columns, minlength=1)[columns] == 1)
    number = (values[alone, None] > THRESHOLDS).sum(axis=0)
    return number if alone.all() else number + _largest(rows[~alone], columns[~alone], values[~alone])


def _largest(rows: NDArray, columns: NDArray, values: NDArray) -> NDArray[np.int64]:
    """The size of the largest matching of a graph's edges above each threshold, (10,).

    The highest threshold comes first: the next one, which has more edges, begins with its matching. scipy has
    the same, but takes longer to import than it takes to score 500 images without it.
    """
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


def _by_category(categories: Sequence[str], by_image: NDArray) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for category, value in zip(categories, by_image, strict=True):
        values.setdefault(category, []).append(float(value))
    return {category: float(np.mean(values[category])) for category in sorted(values)}


def means(values: Sequence[float], seed: int = 0) -> NDArray[np.float64]:
    """The means of as many values drawn with replacement, (ROUNDS,)."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (_ROUNDS, len(values)))
    return drawn.mean(axis=1)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 90 % percentile interval of the mean of values, one an image (Efron 1979)."""
    low, high = np.quantile(means(values), [0.05, 0.95])
    return float(low), float(high)
