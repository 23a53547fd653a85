"""A regular grid of overlapping tiles over a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grid(height: int, width: int, tile: tuple[int, int], stride: tuple[int, int]) -> NDArray[np.int64]:
    """Tiles that together cover the frame, row by row, spread evenly at a distance as near the stride as
    fits.

    A frame smaller than the tile gives one tile of the frame's own size.

    Args:
        tile: (height, width) in pixels.
        stride: (down, right) from one tile to the next, in pixels.

    Returns:
        (K, 4) x0, y0, x1, y1, half-open.

    Example:
        >>> grid(520, 704, (208, 281), (104, 140)).shape  # the 16 tiles of the competition's 6th place
        (16, 4)
    """
    tops, lefts = _starts(height, tile[0], stride[0]), _starts(width, tile[1], stride[1])
    y, x = (a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x, y, np.minimum(x + tile[1], width), np.minimum(y + tile[0], height)], axis=1)


def _starts(length: int, tile: int, stride: int) -> NDArray[np.int64]:
    last = max(length - tile, 0)
    steps = max(round(last / stride), -(-last // tile))  # at least so many that no pixel is left out
    return np.arange(steps + 1) * last // max(steps, 1)
