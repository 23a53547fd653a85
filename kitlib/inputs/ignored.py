"""Where a training image's cells are not known: what lies there is neither cell nor background."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import Tensor

# A box is undecided when more than this share of it is ignored. Whatever overlaps an ignored box at an IoU
# above a half has more than half of itself in it, so no box that could match an unknown cell there is taken
# for background; pycocotools forgives detections in a crowd by the same rule.
MOST = 0.5


class IgnoredArea:
    """The ignored pixels of one image, usable as the field ``gt_ignored`` of its ``Instances``.

    Every cell refers to the same area: indexing changes how many do and nothing else. So detectron2 carries
    the area along with the cells to wherever boxes are labelled.

    Attributes:
        table: (H + 1, W + 1) int32, how many ignored pixels lie above and left of each corner.
        count: how many cells refer to the area.
    """

    def __init__(self, table: Tensor, count: int) -> None:
        self.table, self.count = table, count

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], count: int) -> IgnoredArea:
        """The area of an (H, W) mask."""
        return cls(torch.from_numpy(cv2.integral(np.ascontiguousarray(mask).view(np.uint8))), count)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> IgnoredArea:
        """The same area on another device."""
        return IgnoredArea(self.table.to(device, non_blocking=non_blocking), self.count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int | slice | Tensor) -> IgnoredArea:
        return IgnoredArea(self.table, torch.arange(self.count, device=self.table.device)[item].numel())

    def crop(self, left: int, top: int, right: int, bottom: int, count: int) -> IgnoredArea:
        """The part of the area inside a window; counts from corner to corner stay what they are."""
        return IgnoredArea(self.table[top : bottom + 1, left : right + 1], count)

    def holds(self, boxes: Boxes) -> Tensor:
        """(N,) bool: which boxes lie by more than ``MOST`` of what the image shows of them in the area."""
        height, width = self.table.shape
        x0, y0, x1, y1 = boxes.tensor.round().long().unbind(1)
        x0, x1 = x0.clamp(0, width - 1), x1.clamp(0, width - 1)
        y0, y1 = y0.clamp(0, height - 1), y1.clamp(0, height - 1)
        return self._pixels(x0, y0, x1, y1) > MOST * (x1 - x0) * (y1 - y0)

    def inside(self, boxes: Tensor, side: int) -> Tensor:
        """(N, side, side) bool: which bins of (N, 4) boxes have their middle in the area."""
        height, width = self.table.shape
        at = (torch.arange(side, device=boxes.device) + 0.5) / side
        x = (boxes[:, 0, None] + at * (boxes[:, 2] - boxes[:, 0])[:, None]).long().clamp(0, width - 2)
        y = (boxes[:, 1, None] + at * (boxes[:, 3] - boxes[:, 1])[:, None]).long().clamp(0, height - 2)
        x, y = x[:, None, :], y[:, :, None]
        return self._pixels(x, y, x + 1, y + 1) > 0

    def _pixels(self, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
        """Ignored pixels of half-open boxes."""
        table = self.table
        return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
