"""A mask head's small square of probabilities, put back where its box lies in the frame.

The same resampling as detectron2's ``paste_masks_in_image`` (bilinear, at pixel centres, zero outside the
square), but into an array of the box's size: nothing here is as large as the frame.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Patch(NamedTuple):
    """Probabilities (h, w) of a part of the frame whose top left pixel lies at column ``x``, row ``y``."""

    x: int
    y: int
    values: NDArray[np.float32]


def paste(square: NDArray[np.float32], box: NDArray[np.float64], height: int, width: int) -> Patch:
    """Resample a mask head's output to the pixels of the frame that its box covers.

    Args:
        square: (S, S) probabilities, rows from the box's top to its bottom.
        box: x0, y0, x1, y1 in pixels of the frame, not rounded; it may stick out.
        height, width: of the frame.

    Returns:
        The box and a margin of a pixel, cut to the frame: (0, 0) when nothing of it is inside.
    """
    x0, y0, x1, y1 = box.tolist()
    left, right = max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)
    top, bottom = max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)
    if not (x0 < x1 and y0 < y1 and left < right and top < bottom):
        return Patch(0, 0, np.zeros((0, 0), np.float32))
    size = len(square)
    rows = (np.arange(top, bottom) + 0.5 - y0) * (size / (y1 - y0))
    columns = (np.arange(left, right) + 0.5 - x0) * (size / (x1 - x0))
    weights = _weights(np.concatenate([rows, columns]), size)  # in one go: most boxes are small
    return Patch(left, top, weights[: len(rows)] @ square @ weights[len(rows) :].T)


def _weights(places: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """(P, size): what each of ``size`` samples, in the middle of 0 to 1, 1 to 2, ..., adds at each place."""
    distance = (places - 0.5).astype(np.float32)[:, None] - np.arange(size, dtype=np.float32)
    return np.maximum(1.0 - np.abs(distance), 0.0)
