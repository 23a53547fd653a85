"""The images that a model gets of a frame: parts of it, resized, rotated or mirrored; and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.predict.config import Orientation, PredictConfig
from kitlib.predict.detections import Detections

#: The symmetries of a square: (transposed, then upside down, then left to right). Rotations turn to the left.
ORIENTATIONS: dict[Orientation, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "flip_h": (False, False, True),
    "flip_v": (False, True, False),
    "rot180": (False, True, True),
    "transpose": (True, False, False),
    "rot90": (True, True, False),
    "rot270": (True, False, True),
    "antitranspose": (True, True, True),
}


@dataclass(frozen=True)
class View:
    """One image for the model.

    Attributes:
        source: the number of its scale and orientation; tiles of one source share it.
        tile: x0, y0, x1, y1 of the part of the frame, half-open.
        core: x0, y0, x1, y1, half-open, not rounded: this tile owns the detections whose centres lie in here.
    """

    source: int
    scale: float
    orientation: Orientation
    tile: tuple[int, int, int, int]
    core: tuple[float, float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the resized part, before it is rotated."""
        x0, y0, x1, y1 = self.tile
        return max(round((y1 - y0) * self.scale), 1), max(round((x1 - x0) * self.scale), 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image that the model gets."""
        return self.size[::-1] if ORIENTATIONS[self.orientation][0] else self.size

    def image(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an (H, W) frame, resized, rotated or mirrored."""
        x0, y0, x1, y1 = self.tile
        part = frame[y0:y1, x0:x1]
        if part.shape != self.size:
            resized = cv2.resize(part, self.size[::-1], interpolation=cv2.INTER_LINEAR)
            part = np.asarray(resized, np.uint8)
        transposed, rows, columns = ORIENTATIONS[self.orientation]
        part = part.T if transposed else part
        return part[:: -1 if rows else 1, :: -1 if columns else 1]

    def back(self, found: Detections) -> Detections:
        """Detections in this view's pixels as detections in the frame's, those that its tile owns.

        Nothing is resampled: boxes and squares are rotated back exactly.
        """
        (height, width), (transposed, rows, columns) = self.shape, ORIENTATIONS[self.orientation]
        left, top, right, bottom = found.boxes.T
        squares = np.asarray(found.squares)[:, :: -1 if rows else 1, :: -1 if columns else 1]
        if rows:
            top, bottom = height - bottom, height - top
        if columns:
            left, right = width - right, width - left
        if transposed:
            left, top, right, bottom = top, left, bottom, right
            squares = squares.transpose(0, 2, 1)
        boxes = np.stack([left, top, right, bottom], axis=1) * self._stretch + np.tile(self.tile[:2], 2)
        return replace(found, boxes=boxes, squares=squares).take(self.owns(boxes))

    def resized(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes (N, 4) of the frame in the pixels of the resized part, before it is rotated."""
        return (boxes - np.tile(self.tile[:2], 2)) / self._stretch

    def owns(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the centre of each of the frame's boxes, (N, 4), lies in the core."""
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (self.core[:2] <= centres) & (centres < self.core[2:])
        return inside[:, 0] & inside[:, 1]

    @property
    def _stretch(self) -> NDArray[np.float64]:
        """How many of the frame's pixels a pixel of the resized part is, for x0, y0, x1, y1."""
        x0, y0, x1, y1 = self.tile
        return np.tile([(x1 - x0) / self.size[1], (y1 - y0) / self.size[0]], 2)


def views(config: PredictConfig, height: int, width: int, smaller: int = 1) -> list[View]:
    """All images that each model gets of a frame, those of equal shape together where it can be.

    Args:
        config: scales, orientations and tiles.
        height: of the frame.
        width: of the frame.
        smaller: divide the sides of the tiles, or of the whole frame, by this to save memory.
    """
    whole = config.tile or (height, width)
    down, right = config.stride or (whole[0] // 2, whole[1] // 2)
    tile = -(-whole[0] // smaller), -(-whole[1] // smaller)
    parts = grid(height, width, tile, (max(down // smaller, 1), max(right // smaller, 1)))
    orientations = sorted(config.tta, key=lambda name: ORIENTATIONS[name][0])
    sources = [(scale, orientation) for scale in config.scales for orientation in orientations]
    return [
        View(source, scale, orientation, tuple(part), tuple(core))
        for source, (scale, orientation) in enumerate(sources)
        for part, core in zip(parts.tolist(), cores(parts).tolist(), strict=True)
    ]


def cores(parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The part of the frame that each tile of a grid owns: up to the middle of its overlap with the next tile
    and, at the frame's border, as far as boxes reach.

    A cell that some tile sees whole is found once, by a tile that sees it whole: if tile i cut it at its
    right border R_i, the cell would reach to the left no farther than the next tile's border L, the centre of
    what tile i sees would lie right of (L + R_i) / 2, and tile i does not own it. A cell that no tile sees
    whole, because it is larger than the overlap, is found at least by the last tile that begins left of it;
    pieces that several tiles see are left to fusion.

    Args:
        parts: (K, 4) x0, y0, x1, y1 of ``grid``.

    Returns:
        (K, 4), half-open; infinite at the frame's borders.
    """
    owned = np.empty(parts.shape)
    for axis in (0, 1):
        starts, place = np.unique(parts[:, axis], return_inverse=True)
        ends = np.unique(parts[:, axis + 2])
        bounds = np.concatenate([[-np.inf], (starts[1:] + ends[:-1]) / 2, [np.inf]])
        owned[:, axis], owned[:, axis + 2] = bounds[place], bounds[place + 1]
    return owned


def grid(height: int, width: int, tile: tuple[int, int], stride: tuple[int, int]) -> NDArray[np.int64]:
    """Tiles that together cover the frame, row by row, spread evenly at a distance as near the stride as
    fits.

    A frame smaller than the tile gives one tile of the frame's own size.

    Args:
        height: of the frame.
        width: of the frame.
        tile: (height, width) in pixels.
        stride: (down, right) from one tile to the next, in pixels.

    Returns:
        (K, 4) x0, y0, x1, y1, half-open.

    Example:
        The 16 tiles of the competition's 6th place:

        >>> grid(520, 704, (208, 281), (104, 140)).shape
        (16, 4)
    """
    tops, lefts = _starts(height, tile[0], stride[0]), _starts(width, tile[1], stride[1])
    y, x = (a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x, y, np.minimum(x + tile[1], width), np.minimum(y + tile[0], height)], axis=1)


def _starts(length: int, tile: int, stride: int) -> NDArray[np.int64]:
    last = max(length - tile, 0)
    # At least so many that no pixel is left out.
    steps = max(round(last / stride), -(-last // tile))
    return np.arange(steps + 1) * last // max(steps, 1)
