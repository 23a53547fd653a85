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
    x0, y0, x1, y1 = (float(v) for v in box)
    left, right = max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)
    top, bottom = max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)
    if not (x0 < x1 and y0 < y1 and left < right and top < bottom):
        return Patch(0, 0, np.zeros((0, 0), np.float32))
    rows = _weights(top, bottom, y0, y1, square.shape[0])
    columns = _weights(left, right, x0, x1, square.shape[1])
    return Patch(left, top, rows @ square @ columns.T)


def _weights(first: int, last: int, low: float, high: float, size: int) -> NDArray[np.float32]:
    """(last - first, size): what each of ``size`` samples, spread evenly from ``low`` to ``high``, adds to
    each pixel."""
    centres = (np.arange(first, last) + 0.5 - low) * (size / (high - low)) - 0.5
    distance = np.abs(centres[:, None] - np.arange(size))
    return np.maximum(1.0 - distance, 0.0).astype(np.float32)
