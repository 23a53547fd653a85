"""What models detect in a frame, before detections of one cell become one instance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detectron2.structures import Instances


@dataclass(frozen=True)
class Detections:
    """N detections, as arrays.

    Attributes:
        boxes: (N, 4) x0, y0, x1, y1 in pixels, not rounded; may stick out of the frame.
        scores: (N,) in 0..1.
        classes: (N,) int.
        squares: of each, (S, S) probabilities within its box; an array (N, S, S), or a list.
        sources: (N,) int: which model and view, all tiles of a view together, made each.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    squares: NDArray[np.float32] | list[NDArray[np.float32]]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray) -> Detections:
        """Those at an array of indices or where an array of bool is True."""
        return Detections(*(np.asarray(getattr(self, f.name))[index] for f in fields(self)))

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        """All detections of at least one part, in order, with a list of the squares: these are most of the
        memory, and are not copied."""
        boxes, scores, classes, sources = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("boxes", "scores", "classes", "sources")
        )
        squares = [square for part in parts for square in part.squares]
        return Detections(boxes, scores, classes, squares, sources)

    @staticmethod
    def from_instances(instances: Instances, source: int = 0) -> Detections:
        """A model's raw instances, in the pixels of the image that it saw.

        Boxes without area and numbers that are not finite are dropped.

        Args:
            instances: with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` (N, 1, S, S).
            source: the number of the model and view.
        """
        boxes = instances.pred_boxes.tensor.double().cpu().numpy()
        scores = instances.scores.double().cpu().numpy()
        sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        sound[sound] = (boxes[sound, 2:] > boxes[sound, :2]).all(axis=1)
        squares = instances.pred_masks.float().cpu().numpy()[:, 0]
        sound &= np.isfinite(squares).all(axis=(1, 2))
        sources = np.full(len(boxes), source)
        return Detections(boxes, scores, instances.pred_classes.cpu().numpy(), squares, sources).take(sound)


class Patch(NamedTuple):
    """Probabilities (h, w) of a part of the frame whose top left pixel lies at column ``x``, row ``y``."""

    x: int
    y: int
    values: NDArray[np.float32]


def paste(square: NDArray[np.float32], box: NDArray[np.float64], height: int, width: int) -> Patch:
    """Resample a mask head's output to the pixels of the frame that its box covers.

    The same resampling as detectron2's ``paste_masks_in_image`` (bilinear, at pixel centres, zero outside the
    square), but into an array of the box's size: nothing here is as large as the frame.

    Args:
        square: (S, S) probabilities, rows from the box's top to its bottom.
        box: x0, y0, x1, y1 in pixels of the frame, not rounded; it may stick out.
        height: of the frame.
        width: of the frame.

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
    # Both in one go, as most boxes are small.
    weights = _weights(np.concatenate([rows, columns]), size)
    return Patch(left, top, weights[: len(rows)] @ square @ weights[len(rows) :].T)


def _weights(places: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """(P, size): what each of ``size`` samples, in the middle of 0 to 1, 1 to 2, ..., adds at each place."""
    distance = (places - 0.5).astype(np.float32)[:, None] - np.arange(size, dtype=np.float32)
    return np.maximum(1.0 - np.abs(distance), 0.0)
