"""What networks see in a frame, before it is decided what the frame holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

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
        squares: (N, S, S) probabilities within the boxes.
        sources: (N,) int: which model and view, all tiles of a view together, made each.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    squares: NDArray[np.float32]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray) -> Detections:
        """Those at an array of indices or where an array of bool is True."""
        return Detections(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        """All detections of at least one part, in order."""
        return Detections(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Detections)))

    @staticmethod
    def from_instances(instances: Instances, source: int = 0) -> Detections:
        """A model's raw instances, in the pixels of the image that it saw.

        Boxes without area and numbers that are not finite are dropped.

        Args:
            instances: ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` (N, 1, S, S).
        """
        boxes = instances.pred_boxes.tensor.double().cpu().numpy()
        scores = instances.scores.double().cpu().numpy()
        sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        sound[sound] = (boxes[sound, 2:] > boxes[sound, :2]).all(axis=1)
        squares = instances.pred_masks.float().cpu().numpy()[:, 0]
        sound &= np.isfinite(squares).all(axis=(1, 2))
        sources = np.full(len(boxes), source)
        return Detections(boxes, scores, instances.pred_classes.cpu().numpy(), squares, sources).take(sound)
