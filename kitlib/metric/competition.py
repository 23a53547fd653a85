"""The competition's metric: precision at ten IoU thresholds, averaged over thresholds and then over images.

Per image and threshold the precision is TP / (TP + FP + FN); ``kitlib.metric.matching`` says what matches.
Types play no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError, shortened
from kitlib.metric.matching import THRESHOLDS, pairs, true_positives
from kitlib.records import Frame

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


def score(truth: Iterable[Frame], predictions: Iterable[Frame]) -> Score:
    """Score predictions against the truth.

    Args:
        truth: frames with their annotated cells; these are the images that count.
        predictions: frames with predicted cells, matched by id. A missing frame has no predictions.

    Raises:
        KitError: no true frames, or a prediction for an image that is not among them or of another size.
    """
    tally = _Tally()
    for place, frame, predicted in paired(truth, predictions):
        tally.add(place, frame, predicted)
    return tally.score()


def paired(truth: Iterable[Frame], predictions: Iterable[Frame]) -> Iterator[tuple[int, Frame, Frame | None]]:
    """Each true frame with its place among the true ones and the predicted frame of its id, None without one.

    A frame waits in memory until its partner has been read: a few frames where both have the same order.
    True frames without a partner come last.

    Args:
        truth: each id once.
        predictions: each id once.

    Raises:
        KitError: a prediction for an image without truth, or of another size.
    """
    waiting: dict[str, tuple[int, Frame]] = {}
    found: dict[str, Frame] = {}
    for place, (frame, predicted) in enumerate(itertools.zip_longest(truth, predictions)):
        if frame is not None:
            waiting[frame.id] = place, frame
        if predicted is not None:
            found[predicted.id] = predicted
        for name in {each.id for each in (frame, predicted) if each is not None}:
            if name in waiting and name in found:
                _check_size(waiting[name][1], found[name])
                yield *waiting.pop(name), found.pop(name)
    _refuse_extra(found.keys())
    for place, frame in waiting.values():
        yield place, frame, None


def _refuse_extra(ids: Iterable[str]) -> None:
    extra = sorted(ids)
    if extra:
        raise KitError(
            f"predictions for {len(extra)} images without truth, the first is '{shortened(extra[0])}'; "
            "remove them"
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
        masks = [cell.mask for cell in predicted.cells] if predicted else []
        tp = true_positives(pairs([cell.mask for cell in truth.cells], masks))
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
            by_category=means_by_category(categories, by_image),
            by_threshold=dict(zip(THRESHOLDS.tolist(), precisions.mean(axis=0).tolist(), strict=True)),
            counts=tuple(
                Counts(float(t), int(n), int(sum(predicted) - n), int(sum(cells) - n))
                for t, n in zip(THRESHOLDS, totals, strict=True)
            ),
        )


def _check_size(truth: Frame, predicted: Frame) -> None:
    if (truth.height, truth.width) != (predicted.height, predicted.width):
        raise KitError(
            f"the predictions for image '{shortened(truth.id)}' are of a frame {predicted.width} wide, "
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


def means_by_category(categories: Sequence[str], by_image: NDArray[np.float64]) -> dict[str, float]:
    """The mean over the images of each type, by name."""
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
