"""The orders in which frames can be browsed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kitlib.viewer.corrected import Corrected
from kitlib.viewer.layers import Layers, Thresholds
from kitlib.viewer.scene import match

GIVEN = "as given"


class Place(NamedTuple):
    """A frame in an order, and the number that put it there, in words."""

    frame_id: str
    why: str


def names(layers: Layers) -> list[str]:
    """The orders that the layers allow."""
    found = [GIVEN, "name", "number of cells"]
    if layers.predictions and layers.annotated:
        found += ["score", "disagreement"]
    return found + (["confidence"] if layers.predictions else [])


def order(layers: Layers, corrected: Corrected, by: str) -> list[Place]:
    """The frames in an order: those first that are worth a look.

    Args:
        layers: all cells.
        corrected: the annotated cells as they are now.
        by: one of ``names``. "score" is the competition's metric, the lowest first; "disagreement" the number
            of annotated and predicted cells without a partner, the highest first; "confidence" the mean score
            of the predicted cells, the lowest first. Frames without predictions come last.
    """
    if by in (GIVEN, "name"):
        ids = list(layers.frames) if by == GIVEN else sorted(layers.frames)
        return [Place(frame_id, "") for frame_id in ids]
    measure, text = _MEASURES[by]
    values = {frame_id: measure(layers, corrected, frame_id) for frame_id in layers.frames}
    first = sorted(values, key=lambda frame_id: (values[frame_id] is None, values[frame_id] or 0.0))
    return [Place(name, "not predicted" if (v := values[name]) is None else text(v)) for name in first]


def _cells(layers: Layers, corrected: Corrected, frame_id: str) -> float:
    return -len(corrected.frame(frame_id).cells)


def _score(layers: Layers, corrected: Corrected, frame_id: str) -> float | None:
    predicted = layers.predicted(frame_id, Thresholds())
    if predicted is None:
        return None
    return match(corrected.frame(frame_id).cells, predicted.frame.cells).score


def _disagreement(layers: Layers, corrected: Corrected, frame_id: str) -> float | None:
    predicted = layers.predicted(frame_id, Thresholds())
    if predicted is None:
        return None
    return -match(corrected.frame(frame_id).cells, predicted.frame.cells).disagreement


def _confidence(layers: Layers, corrected: Corrected, frame_id: str) -> float | None:
    predicted = layers.predicted(frame_id, Thresholds())
    if predicted is None or not predicted.frame.cells:
        return None
    return float(np.mean([cell.confidence for cell in predicted.frame.cells]))


_Measure = Callable[[Layers, Corrected, str], float | None]
# What frames are sorted by, the lowest first, and its words.
_MEASURES: dict[str, tuple[_Measure, Callable[[float], str]]] = {
    "number of cells": (_cells, lambda value: f"{-value:.0f} cells"),
    "score": (_score, lambda value: f"score {value:.3f}"),
    "disagreement": (_disagreement, lambda value: f"{-value:.0f} without a partner"),
    "confidence": (_confidence, lambda value: f"confidence {value:.2f}"),
}
