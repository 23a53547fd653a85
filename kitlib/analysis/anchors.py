"""Whether the network's anchors fit the cells, at the scales at which it sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.model.presets import LEVELS, Architecture
from kitlib.records import Frame

#: Pixels of the network's input from one position of a feature map to the next, finest level first.
STRIDES = tuple(4 * 2**level for level in range(LEVELS))
#: From this IoU on an anchor is taken to fit; detectron2's proposal network calls those from 0.7 on positive,
#: and the best one of each cell whatever its IoU.
FITS = 0.5
_POSITIVE = 0.7


@dataclass(frozen=True)
class Fit:
    """The best anchor of each of N cells.

    Attributes:
        boxes: (N, 4) the cells' boxes in pixels of the network's input, x0, y0, x1, y1.
        anchors: (N, 4) their best anchors.
        iou: (N,) of both.
        level: (N,) the anchor's level, 0 for the finest.
    """

    boxes: NDArray[np.float64]
    anchors: NDArray[np.float64]
    iou: NDArray[np.float64]
    level: NDArray[np.int64]


def shapes(architecture: Architecture) -> NDArray[np.float64]:
    """Level, width and height of each anchor shape, (A, 3), as detectron2's ``DefaultAnchorGenerator``."""
    return np.array(
        [
            (level, size / ratio**0.5, size * ratio**0.5)
            for level, sizes in enumerate(architecture.anchor_sizes)
            for size in sizes
            for ratio in architecture.anchor_ratios
        ]
    )


def fit(boxes: NDArray, architecture: Architecture, scale: float = 1.0) -> Fit:
    """The best anchor of each box: for every shape the one whose centre is nearest, on the grid of its level.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the frame.
        architecture: the model's, with its anchors.
        scale: factor by which the frame is resized for the network.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4) * scale
    kinds = shapes(architecture)
    stride = np.array(STRIDES)[kinds[:, 0].astype(int)]
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    nearest = np.round(centre / stride[None, :, None]) * stride[None, :, None]
    half = kinds[None, :, 1:] / 2
    anchors = np.concatenate([nearest - half, nearest + half], axis=2)
    low = np.maximum(boxes[:, None, :2], anchors[..., :2])
    high = np.minimum(boxes[:, None, 2:], anchors[..., 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = common / np.maximum(sizes[:, None] + kinds[None, :, 1:].prod(axis=2) - common, 1e-9)
    best, rows = iou.argmax(axis=1), np.arange(len(boxes))
    return Fit(boxes, anchors[rows, best], iou[rows, best], kinds[best, 0].astype(int))


def by_type(
    frames: Sequence[Frame], architecture: Architecture, scales: Mapping[str, float]
) -> dict[str, Fit]:
    """The best anchors of the cells of each type.

    Args:
        frames: with their true cells.
        architecture: the model's, with its anchors.
        scales: by type the factor by which its frames are resized, with ``default`` for the others.
    """
    boxes: dict[str, list[NDArray]] = {}
    for frame in frames:
        masks = [cell.mask for cell in frame.cells]
        boxes.setdefault(frame.category or "unknown", []).append(rle.boxes(masks))
    return {
        name: fit(np.concatenate(boxes[name]), architecture, scales.get(name, scales["default"]))
        for name in sorted(boxes)
    }


def table(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """By type: ``cells``, ``median longer side`` in pixels of the network's input, ``median IoU`` of the best
    anchors, and the shares of cells whose best anchor has an IoU of at least 0.5 and 0.7."""
    rows = {}
    for name, each in fits.items():
        sides = (each.boxes[:, 2:] - each.boxes[:, :2]).max(axis=1, initial=0)
        known = len(sides) > 0
        rows[name] = {
            "cells": len(sides),
            "median longer side": float(np.median(sides)) if known else np.nan,
            "median IoU": float(np.median(each.iou)) if known else np.nan,
            f"IoU at least {FITS}": float((each.iou >= FITS).mean()) if known else np.nan,
            f"IoU at least {_POSITIVE}": float((each.iou >= _POSITIVE).mean()) if known else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
