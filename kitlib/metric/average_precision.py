"""COCO's average precision (AP) of masks: how well scores rank the predicted cells.

The numbers are those of pycocotools' ``COCOeval`` (Lin et al. 2014) with area range "all" and at most 2,000
detections of an image and class. pycocotools is not called for them because its ``COCOeval.evaluateImg``
compares every prediction with every true cell in Python: 18 s for 34 images of 206 cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.metric.competition import paired
from kitlib.metric.matching import Pairs, pairs
from kitlib.records import Cell, Frame

# Instances of an image and class that count, best first: COCO's own 100 are too few for cells.
_MAX_DETECTIONS = 2000
# COCO's, which differ from the competition's in the last bit; an IoU of exactly the threshold matches.
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


class Detections(NamedTuple):
    """The predicted cells of one image, best first.

    Attributes:
        scores: (D,).
        matched: whether each matches a true cell at each of the ten thresholds, (10, D).
        cells: the number of true cells.
    """

    scores: NDArray[np.float64]
    matched: NDArray[np.bool_]
    cells: int


class AveragePrecision(NamedTuple):
    """AP in 0..1: the mean over IoU 0.50 to 0.95, and that at 0.50."""

    mean: float
    at_50: float


def detections(found: Pairs, scores: NDArray[np.float64], cells: int) -> Detections:
    """The predicted cells of an image, each matched with the free true cell of the highest IoU, best first.

    Args:
        found: the pairs of the image's cells.
        scores: of the predicted cells, (P,).
        cells: the number of true cells.
    """
    order = np.argsort(-scores, kind="stable")[:_MAX_DETECTIONS]
    rank = np.full(len(scores), len(order))
    rank[order] = np.arange(len(order))
    kept = (found.iou >= _THRESHOLDS[0]) & (rank[found.predicted] < len(order))
    found = found.where(kept)
    matched = np.zeros((len(_THRESHOLDS), len(order)), bool)
    alone = found.alone()
    matched[:, rank[found.predicted[alone]]] = found.iou[alone] >= _THRESHOLDS[:, None]
    contested = found.where(~alone)
    places = np.lexsort((contested.true, rank[contested.predicted]))
    ranked = rank[contested.predicted[places]].tolist()
    triples = list(zip(ranked, contested.true[places].tolist(), contested.iou[places].tolist(), strict=True))
    for number, threshold in enumerate(_THRESHOLDS.tolist() if triples else ()):
        matched[number, _greedy(triples, threshold)] = True
    return Detections(scores[order], matched, cells)


def _greedy(triples: Sequence[tuple[int, int, float]], threshold: float) -> list[int]:
    """The ranks that are matched.

    Args:
        triples: rank of the prediction, true cell and IoU, in this order.
        threshold: the least IoU of a match.
    """
    taken: dict[int, int] = {}
    best: tuple[int, int, float] | None = None
    for triple in [*triples, (-1, -1, 0.0)]:
        if best is not None and triple[0] != best[0]:
            taken[best[1]] = best[0]
            best = None
        # Of true cells with the same IoU, COCO takes the last.
        if triple[2] >= (threshold if best is None else best[2]) and triple[1] not in taken:
            best = triple
    return list(taken.values())


def average_precision(images: Sequence[Detections]) -> AveragePrecision | None:
    """The AP of one class from its detections in all images; None where there is no true cell of it."""
    cells = sum(image.cells for image in images)
    if not cells:
        return None
    scores = np.concatenate([image.scores for image in images])
    matched = np.concatenate([image.matched for image in images], axis=1)
    matched = matched[:, np.argsort(-scores, kind="stable")]
    found = np.cumsum(matched, axis=1)
    precisions = found / (np.arange(matched.shape[1]) + 1)
    # The precision at a recall is the highest at this or at any higher recall.
    precisions = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    values = [_area(row, recall) for row, recall in zip(precisions, found / cells, strict=True)]
    return AveragePrecision(float(np.mean(values)), float(values[0]))


def by_type(truth: Iterable[Frame], predictions: Iterable[Frame]) -> dict[str, AveragePrecision]:
    """The AP of each type that has true cells.

    Args:
        truth: frames with their annotated cells, each id once; these are the images that count.
        predictions: frames with typed and scored cells, each id once. A missing frame has no predictions.

    Raises:
        KitError: a prediction for an image without truth, or of another size.
    """
    found: dict[str, list[Detections]] = defaultdict(list)
    for _, frame, predicted in paired(truth, predictions):
        sides = _of_each_type(frame.cells), _of_each_type(predicted.cells if predicted else ())
        for name in sides[0].keys() | sides[1].keys():
            cells, guesses = (side.get(name, []) for side in sides)
            matches = pairs([cell.mask for cell in cells], [cell.mask for cell in guesses])
            scores = np.array([cell.confidence for cell in guesses], float)
            found[name].append(detections(matches, scores, len(cells)))
    values = {name: average_precision(found[name]) for name in sorted(found)}
    return {name: value for name, value in values.items() if value is not None}


def _of_each_type(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    parts: dict[str, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(cell.category, []).append(cell)
    return parts


def mean_over_types(values: Mapping[str, AveragePrecision | None]) -> AveragePrecision | None:
    """The AP in all as COCO has it: the mean over the types that have true cells; None without any."""
    known = [value for value in values.values() if value is not None]
    return AveragePrecision(*np.mean(known, axis=0).tolist()) if known else None


def _area(precisions: NDArray, recalls: NDArray) -> float:
    """The mean precision at COCO's 101 recalls; 0 where a recall is not reached."""
    places = np.searchsorted(recalls, _RECALLS, side="left")
    return float(np.append(precisions, 0.0)[places].mean())
