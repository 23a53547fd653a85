"""What raw instances are worth before any threshold: which cells they reach, and whether scores are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.records import Cell, Frame

# Bounds of box and mask recall; detectron2's cascade asks of its boxes an IoU of 0.5, 0.6 and 0.7.
_RECALL_IOUS = (0.5, 0.7)
_FOUND_IOU = 0.5
_IN_TRUE_BOXES = "mask IoU in true boxes"


def recall(
    truth: Sequence[Frame], predictions: Sequence[Frame], in_true_boxes: Sequence[Frame] = ()
) -> pd.DataFrame:
    """The share of true cells that any instance reaches, by box and by mask, and by type.

    Low box recall asks for better proposals (anchors, scale, training), a low mask IoU where the box is right
    for better masks. A cell counts as reached where its best IoU with any instance is above the bound; that
    several cells share an instance does not matter. Boxes are the tight boxes of the masks.

    Args:
        truth: frames with their true cells.
        predictions: the same frames with all instances found in them, before any threshold; matched by id.
        in_true_boxes: the same frames with the masks that the model draws in the true cells' boxes.

    Returns:
        One row a type and, of several, a last one, "all", with the columns ``cells``, ``box recall at 0.5``
        and ``at 0.7``, ``mask recall at 0.5`` and ``at 0.7``, and ``mask IoU where the box reaches 0.7``: the
        median of these cells' best mask IoU, NaN where there are none. Then, where they are given,
        ``mask IoU in true boxes``: the median of the cells' best IoU with these masks, in the frames that
        have any.
    """
    predicted, drawn = (
        {frame.id: [cell.mask for cell in frame.cells] for frame in frames}
        for frames in (predictions, in_true_boxes)
    )
    best: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for frame in truth:
        masks = [cell.mask for cell in frame.cells]
        found = _best_ious(masks, predicted.get(frame.id, []))
        best[frame.category or "unknown"].append(np.c_[found, _drawn_ious(masks, drawn.get(frame.id, []))])
    rows = {name: np.concatenate(best[name]) for name in sorted(best)}
    if len(rows) > 1:
        rows["all"] = np.concatenate(list(rows.values()))
    table = pd.DataFrame.from_dict(
        {name: _recalls(*values.T) for name, values in rows.items()}, orient="index"
    )
    return table if in_true_boxes else table.drop(columns=_IN_TRUE_BOXES, errors="ignore")


def _best_ious(masks: Sequence[RLE], predicted: Sequence[RLE]) -> NDArray[np.float64]:
    """Each true cell's best IoU by box and by mask, (T, 2)."""
    if not masks or not predicted:
        return np.zeros((len(masks), 2))
    boxes = box_iou(rle.boxes(masks), rle.boxes(predicted))
    return np.stack([boxes.max(axis=1), rle.iou(masks, predicted).max(axis=1)], axis=1)


def _drawn_ious(masks: Sequence[RLE], drawn: Sequence[RLE]) -> NDArray[np.float64]:
    """Each true cell's best IoU with masks that were drawn in true boxes, (T,); NaN where none were."""
    return rle.iou(masks, drawn).max(axis=1) if masks and drawn else np.full(len(masks), np.nan)


def _recalls(
    box: NDArray[np.float64], mask: NDArray[np.float64], drawn: NDArray[np.float64]
) -> dict[str, float]:
    row: dict[str, float] = {"cells": len(box)}
    for name, values in (("box", box), ("mask", mask)):
        for bound in _RECALL_IOUS:
            row[f"{name} recall at {bound}"] = float((values > bound).mean()) if len(values) else float("nan")
    medians = {
        f"mask IoU where the box reaches {_RECALL_IOUS[-1]}": mask[box > _RECALL_IOUS[-1]],
        _IN_TRUE_BOXES: drawn[~np.isnan(drawn)],
    }
    return row | {
        name: float(np.median(values)) if len(values) else float("nan") for name, values in medians.items()
    }


def box_iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """The IoU of boxes, (A, B); both as x0, y0, x1, y1 in pixels, half-open."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    areas, other_areas = ((c[:, 2:] - c[:, :2]).prod(axis=1) for c in (a, b))
    return common / np.maximum(areas[:, None] + other_areas[None] - common, 1e-9)


@dataclass(frozen=True)
class Bin:
    """Instances of similar score.

    Attributes:
        score: their mean score.
        instances: their number.
        matched: the share that matches a true cell.
        low: the lower end of the share's 90 % interval.
        high: its upper end.
    """

    score: float
    instances: int
    matched: float
    low: float
    high: float


def reliability(truth: Sequence[Frame], predictions: Sequence[Frame], bins: int = 10) -> list[Bin]:
    """How often instances of a score match a true cell at an IoU above 0.5, in bins of equal width.

    Of a calibrated score, instances of score 0.7 match in 7 of 10 cases. The better instance of two on one
    cell matches it, and an instance takes the free true cell with the highest IoU. Intervals are those of
    Wilson (1927), as if instances were independent; those of one image are alike, so the truth is less
    certain.

    Args:
        truth: frames with their true cells.
        predictions: the same frames with their instances, of models that did not train on them.
        bins: from score 0 to 1; one without instances is left out.
    """
    predicted = {frame.id: frame.cells for frame in predictions}
    scores, matched = [np.zeros(0)], [np.zeros(0, bool)]
    for frame in truth:
        cells = predicted.get(frame.id, ())
        scores.append(np.array([cell.confidence for cell in cells]))
        matched.append(_matched([cell.mask for cell in frame.cells], cells))
    score, hit = np.concatenate(scores), np.concatenate(matched)
    place = np.minimum((score * bins).astype(int), bins - 1)
    return [_bin(score[place == number], hit[place == number]) for number in np.unique(place)]


def _matched(truth: Sequence[RLE], cells: Sequence[Cell]) -> NDArray[np.bool_]:
    """Whether each instance matches a true cell, the best score first."""
    iou = rle.iou(truth, [cell.mask for cell in cells])
    hit = np.zeros(len(cells), bool)
    for column in sorted(range(len(cells)), key=lambda i: -cells[i].confidence):
        row = int(iou[:, column].argmax()) if len(iou) else -1
        if row >= 0 and iou[row, column] > _FOUND_IOU:
            hit[column] = True
            iou[row] = 0
    return hit


def _bin(scores: NDArray[np.float64], matched: NDArray[np.bool_]) -> Bin:
    low, high = wilson(int(matched.sum()), len(matched))
    return Bin(float(scores.mean()), len(scores), float(matched.mean()), low, high)


def calibration_error(bins: Iterable[Bin]) -> float:
    """The mean distance of score and share of matches, each bin by its instances (Guo et al. 2017)."""
    bins = list(bins)
    total = sum(each.instances for each in bins)
    return sum(each.instances * abs(each.score - each.matched) for each in bins) / max(total, 1)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 90 % score interval of a share (Wilson 1927), for at least one trial.

    Example:
        >>> [round(bound, 3) for bound in wilson(8, 10)]
        [0.541, 0.931]
    """
    z = NormalDist().inv_cdf(0.95)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return float(max(middle - half, 0)), float(min(middle + half, 1))
