"""Annotations that are likely wrong, worst first: what a person should look at, and correct, before training
for longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kitlib.data import cleaning
from kitlib.data.cleaning import CleaningConfig
from kitlib.masks import rle
from kitlib.records import Frame

Reason = Literal[
    "not annotated",
    "found by no model",
    "outline differs",
    "in several parts",
    "with holes",
    "overlaps another cell",
]
# An IoU up to which a prediction has nothing to do with a cell.
_APART_IOU = 0.1
# Suspects below this score are not worth a look.
_LEAST_SCORE = 0.05


@dataclass(frozen=True)
class Suspect:
    """An annotation, or the lack of one, that is likely wrong.

    Attributes:
        frame_id: the frame.
        cell: index of the true cell in the true frame; None where a cell is not annotated.
        predicted: index of the predicted cell that says so in the predicted frame; None where none does.
        reason: in words.
        score: how much speaks for a mistake, 0..1.
    """

    frame_id: str
    cell: int | None
    predicted: int | None
    reason: Reason
    score: float


def find(truth: Sequence[Frame], predictions: Sequence[Frame]) -> list[Suspect]:
    """Likely annotation errors of all frames, worst first; one cell may be suspect for several reasons.

    - not annotated: a prediction that has no IoU above 0.1 with a true cell; its score times the share of it
      that lies in no true cell.
    - found by no model: a true cell without an IoU above 0.1 with any prediction; the share of it that lies
      in no prediction, times the share of the true cells of its type that are found at that IoU: of a model
      that overlooks half of the cells, one more says little.
    - outline differs: the prediction that fits a true cell best; its score times the share by which the IoU
      is below the type's median of such IoUs.
    - in several parts, with holes: the share of pixels outside the largest part, or in the holes.
    - overlaps another cell: the share of the smaller one that lies in the larger.

    Args:
        truth: frames with their annotated cells.
        predictions: the same frames with all instances, before any threshold, that models found in them which
            did not train on them (``predictions.csv``); matched by id. Frames that are not among them are
            judged by their annotation alone.
    """
    predicted = {frame.id: frame for frame in predictions}
    pairs = [(frame, predicted.get(frame.id)) for frame in truth]
    overlaps = [_iou(frame, found or replace(frame, cells=())) for frame, found in pairs]
    found_share, typical = _by_type(pairs, overlaps)
    suspects = []
    for (frame, found), iou in zip(pairs, overlaps, strict=True):
        suspects += list(_faults(frame))
        if found is not None:
            name = frame.category or ""
            suspects += [
                *_not_annotated(frame, found, iou),
                *_not_found(frame, found, iou, found_share[name]),
            ]
            suspects += list(_outlines(frame, found, iou, typical[name]))
    suspects = [suspect for suspect in suspects if suspect.score >= _LEAST_SCORE]
    return sorted(suspects, key=lambda s: (-s.score, s.frame_id, s.cell is None, s.cell or 0, s.reason))


def worst_first(frames: Sequence[Frame], suspects: Sequence[Suspect]) -> list[Frame]:
    """The frames in the order of their likeliest errors, of ``find``; those without one come last."""
    order = {name: place for place, name in enumerate(dict.fromkeys(s.frame_id for s in suspects))}
    return sorted(frames, key=lambda frame: order.get(frame.id, len(order)))


def _iou(frame: Frame, found: Frame) -> NDArray[np.float64]:
    return rle.iou([cell.mask for cell in frame.cells], [cell.mask for cell in found.cells])


def _by_type(
    pairs: Sequence[tuple[Frame, Frame | None]], overlaps: Sequence[NDArray]
) -> tuple[dict[str, float], dict[str, float]]:
    """By type the share of true cells with any prediction near them, and the median of their best IoUs."""
    best: dict[str, list[NDArray]] = {}
    for (frame, found), iou in zip(pairs, overlaps, strict=True):
        if found is not None:
            best.setdefault(frame.category or "", []).append(iou.max(axis=1, initial=0))
    shares, medians = {}, {}
    for name, parts in best.items():
        values = np.concatenate(parts)
        near = values[values > _APART_IOU]
        shares[name] = len(near) / max(len(values), 1)
        medians[name] = float(np.median(near)) if len(near) else 1.0
    return shares, medians


def _not_annotated(frame: Frame, found: Frame, iou: NDArray) -> Iterator[Suspect]:
    alone = np.flatnonzero(iou.max(axis=0, initial=0) <= _APART_IOU).tolist()
    for index, share in zip(alone, _share_outside(found, alone, frame), strict=True):
        yield Suspect(frame.id, None, index, "not annotated", found.cells[index].confidence * share)


def _not_found(frame: Frame, found: Frame, iou: NDArray, found_share: float) -> Iterator[Suspect]:
    alone = np.flatnonzero(iou.max(axis=1, initial=0) <= _APART_IOU).tolist()
    for index, share in zip(alone, _share_outside(frame, alone, found), strict=True):
        yield Suspect(frame.id, index, None, "found by no model", found_share * share)


def _share_outside(frame: Frame, chosen: Sequence[int], other: Frame) -> list[float]:
    """The share of each chosen cell of a frame that lies in no cell of the other one."""
    if not other.cells:
        return [1.0] * len(chosen)
    everything = rle.merge([cell.mask for cell in other.cells])
    return (1 - rle.shares([frame.cells[i].mask for i in chosen], [everything]).ravel()).tolist()


def _outlines(frame: Frame, found: Frame, iou: NDArray, typical: float) -> Iterator[Suspect]:
    best = iou.max(axis=1, initial=0)
    for index in np.flatnonzero((best > _APART_IOU) & (best < typical)).tolist():
        column = int(iou[index].argmax())
        score = found.cells[column].confidence * (1 - best[index] / typical)
        yield Suspect(frame.id, index, column, "outline differs", float(score))


def _faults(frame: Frame) -> Iterator[Suspect]:
    areas = rle.areas([cell.mask for cell in frame.cells])
    largest = _cleaned_areas(frame, CleaningConfig(keep_largest=True))
    filled = _cleaned_areas(frame, CleaningConfig(fill_holes=True))
    for index, (area, part, whole) in enumerate(zip(areas, largest, filled, strict=True)):
        yield Suspect(frame.id, index, None, "in several parts", float(1 - part / max(area, 1)))
        yield Suspect(frame.id, index, None, "with holes", float(1 - area / max(whole, 1)))
    masks = [cell.mask for cell in frame.cells]
    inside = rle.shares(masks, masks)
    for pair in np.argwhere(np.triu(inside > 0, k=1)).tolist():
        smaller, larger = sorted(pair, key=lambda index: (areas[index], index))
        yield Suspect(frame.id, smaller, None, "overlaps another cell", float(inside[smaller, larger]))


def _cleaned_areas(frame: Frame, config: CleaningConfig) -> NDArray[np.int64]:
    (cleaned,) = cleaning.clean([frame], config)
    return rle.areas([cell.mask for cell in cleaned.cells])
