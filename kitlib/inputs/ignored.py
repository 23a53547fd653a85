"""The area of a training image that is not annotated: no box in it counts as background."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import Tensor

# Share of a box in the ignored area above which the area covers the box. A box that could match an unknown
# cell in the area, with an IoU above 0.5, lies in the area by more than half, so it never counts as
# background. pycocotools has the same rule for detections in a crowd.
_COVERED_SHARE = 0.5


class IgnoredArea:
    """The ignored pixels of one image, usable as the field ``gt_ignored`` of its ``Instances``.

    All cells of the image refer to the same area, and indexing changes only their number. So detectron2,
    which indexes every field of ``Instances``, takes the area along to where it labels boxes.

    Attributes:
        table: (H + 1, W + 1) int32, number of ignored pixels above and left of each corner.
        count: number of cells that refer to the area.
    """

    def __init__(self, table: Tensor, count: int) -> None:
        self.table, self.count = table, count

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], count: int) -> IgnoredArea:
        """The area that an (H, W) mask marks, for ``count`` cells."""
        return cls(torch.from_numpy(cv2.integral(np.ascontiguousarray(mask).view(np.uint8))), count)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> IgnoredArea:
        """The same area on another device."""
        return IgnoredArea(self.table.to(device, non_blocking=non_blocking), self.count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int | slice | Tensor) -> IgnoredArea:
        return IgnoredArea(self.table, torch.arange(self.count, device=self.table.device)[item].numel())

    def covers(self, boxes: Boxes) -> Tensor:
        """(N,) bool: which boxes have more than ``_COVERED_SHARE`` of their pixels in the image ignored."""
        height, width = self.table.shape
        x0, y0, x1, y1 = boxes.tensor.round().long().unbind(1)
        x0, x1 = x0.clamp(0, width - 1), x1.clamp(0, width - 1)
        y0, y1 = y0.clamp(0, height - 1), y1.clamp(0, height - 1)
        return self._pixels(x0, y0, x1, y1) > _COVERED_SHARE * (x1 - x0) * (y1 - y0)

    def covers_bins(self, boxes: Tensor, side: int) -> Tensor:
        """(N, side, side) bool: which of ``side`` x ``side`` bins of (N, 4) boxes have an ignored centre."""
        height, width = self.table.shape
        at = (torch.arange(side, device=boxes.device) + 0.5) / side
        x = (boxes[:, 0, None] + at * (boxes[:, 2] - boxes[:, 0])[:, None]).long().clamp(0, width - 2)
        y = (boxes[:, 1, None] + at * (boxes[:, 3] - boxes[:, 1])[:, None]).long().clamp(0, height - 2)
        x, y = x[:, None, :], y[:, :, None]
        return self._pixels(x, y, x + 1, y + 1) > 0

    def _pixels(self, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
        """Number of ignored pixels in half-open boxes."""
        table = self.table
        return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
