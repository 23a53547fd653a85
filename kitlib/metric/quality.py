"""What biologists ask for beside the competition's metric: the quality of a segmentation, by type and in all.

- Precision, recall, F1 and AP, which is TP / (TP + FP + FN), of all images together at each IoU threshold.
- Panoptic quality (Kirillov et al. 2019): PQ = SQ x RQ, the mean IoU of the matches at 0.5 and their F1.
- SEG of the Cell Tracking Challenge (Maška et al. 2014): the mean over the true cells of the IoU with the
  prediction that covers more than half of the cell; 0 without one.
- Split true cells and merging predictions (Caicedo et al. 2019): those that have an IoU above 0.1 with two or
  more predictions, or with two or more true cells.
- The error of the number of cells and of the area that they cover together, image by image.

A ratio without anything to divide by is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.metric.average_precision import AveragePrecision, Detections, detections
from kitlib.metric.competition import precision
from kitlib.metric.matching import THRESHOLDS, Pairs, matched, pairs, true_positives
from kitlib.records import Cell

# The IoU above which a cell is a part of another one, or they are the same.
_PART = 0.1


class Measured(NamedTuple):
    """What is measured of the cells of one image, or of its cells of one type.

    Attributes:
        cells: true ones.
        predicted: predicted ones.
        tp: matches at each of the ten thresholds, (10,).
        matched_iou: the sum of the IoUs of the matches at 0.5.
        seg: the sum of SEG over the true cells.
        split: true cells that are split.
        merging: predictions that merge true cells.
        area: pixels that the true cells cover together.
        predicted_area: pixels that the predicted cells cover together.
        overlap: pixels that the predicted cells cover once more than that.
        detections: the predictions by their scores.
    """

    cells: int
    predicted: int
    tp: NDArray[np.int64]
    matched_iou: float
    seg: float
    split: int
    merging: int
    area: int
    predicted_area: int
    overlap: int
    detections: Detections


class Rates(NamedTuple):
    """Matches of all images at one IoU threshold, and their ratios."""

    threshold: float
    tp: int
    fp: int
    fn: int
    precision: float | None
    recall: float | None
    f1: float | None
    ap: float | None


@dataclass(frozen=True)
class Quality:
    """The quality of the predicted cells of some images.

    Attributes:
        images: how many.
        cells: true cells.
        predicted: predicted cells.
        map: the competition's metric.
        coco_ap: COCO's AP over IoU 0.50 to 0.95; None where the predictions have no scores.
        coco_ap_50: the same at 0.50.
        pq, sq, rq: panoptic, segmentation and recognition quality at 0.5.
        seg: SEG.
        split: true cells that are split.
        merging: predictions that merge true cells.
        count_error: mean over the images of the difference between the numbers of cells.
        count_error_relative: the same as a share of the true number, in the images with true cells.
        area_error: mean over the images of the difference between the covered areas, in pixels.
        area_error_relative: the same as a share of the true area, in the images with true cells.
        rates: at each IoU threshold.
    """

    images: int
    cells: int
    predicted: int
    map: float
    coco_ap: float | None
    coco_ap_50: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    seg: float | None
    split: int
    merging: int
    count_error: float
    count_error_relative: float | None
    area_error: float
    area_error_relative: float | None
    rates: tuple[Rates, ...]


def measure(truth: Sequence[Cell], predicted: Sequence[Cell]) -> Measured:
    """Compare the predicted cells of one image with the true ones; their types play no part."""
    true_masks, masks = [cell.mask for cell in truth], [cell.mask for cell in predicted]
    found = pairs(true_masks, masks)
    areas, predicted_areas = rle.areas(true_masks), rle.areas(masks)
    covered = rle.covered(masks)
    scores = np.array([cell.confidence for cell in predicted], float)
    parts = found.where(found.iou > _PART)
    return Measured(
        cells=len(truth),
        predicted=len(predicted),
        tp=true_positives(found),
        matched_iou=float(matched(found).iou.sum()),
        seg=_seg(found, areas, predicted_areas),
        split=int((np.bincount(parts.true) > 1).sum()),
        merging=int((np.bincount(parts.predicted) > 1).sum()),
        area=rle.covered(true_masks),
        predicted_area=covered,
        overlap=int(predicted_areas.sum()) - covered,
        detections=detections(found, scores, len(truth)),
    )


def _seg(found: Pairs, areas: NDArray[np.int64], predicted_areas: NDArray[np.int64]) -> float:
    true_area, both = areas[found.true], areas[found.true] + predicted_areas[found.predicted]
    # iou = common / (both - common); rounding restores the whole number.
    common = np.rint(found.iou * both / (1 + found.iou))
    covering = found.where(2 * common > true_area)
    best = np.zeros(len(areas))
    np.maximum.at(best, covering.true, covering.iou)
    return float(best.sum())


def summarize(images: Sequence[Measured], coco: AveragePrecision | None = None) -> Quality:
    """The quality of all images together, or of a type in all of them.

    Args:
        images: one image or more.
        coco: COCO's AP; None where it is not known.
    """
    numbers = np.array([(m.cells, m.predicted, m.area, m.predicted_area) for m in images])
    cells, predicted, area, predicted_area = numbers.T
    tp = np.stack([m.tp for m in images])
    rates = tuple(
        _rates(t, n, int(cells.sum()), int(predicted.sum()))
        for t, n in zip(THRESHOLDS.tolist(), tp.sum(axis=0).tolist(), strict=True)
    )
    iou = sum(m.matched_iou for m in images)
    coco_ap, coco_ap_50 = coco or (None, None)
    count_errors, area_errors = np.abs(predicted - cells), np.abs(predicted_area - area)
    return Quality(
        images=len(images),
        cells=int(cells.sum()),
        predicted=int(predicted.sum()),
        map=float(precision(tp, cells[:, None], predicted[:, None]).mean()),
        coco_ap=coco_ap,
        coco_ap_50=coco_ap_50,
        pq=_ratio(2 * iou, cells.sum() + predicted.sum()),
        sq=_ratio(iou, rates[0].tp),
        rq=rates[0].f1,
        seg=_ratio(sum(m.seg for m in images), cells.sum()),
        split=sum(m.split for m in images),
        merging=sum(m.merging for m in images),
        count_error=float(count_errors.mean()),
        count_error_relative=_mean_share(count_errors, cells),
        area_error=float(area_errors.mean()),
        area_error_relative=_mean_share(area_errors, area),
        rates=rates,
    )


def _rates(threshold: float, tp: int, cells: int, predicted: int) -> Rates:
    return Rates(
        threshold=threshold,
        tp=tp,
        fp=predicted - tp,
        fn=cells - tp,
        precision=_ratio(tp, predicted),
        recall=_ratio(tp, cells),
        f1=_ratio(2 * tp, cells + predicted),
        ap=_ratio(tp, cells + predicted - tp),
    )


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _mean_share(errors: NDArray, true: NDArray) -> float | None:
    known = true > 0
    return float((errors[known] / true[known]).mean()) if known.any() else None
