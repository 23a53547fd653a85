"""The masks of an image's cells in training: each within its box, never a stack of full frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from detectron2.structures import Boxes
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.model.roi_align import samples, samples_per_bin

# Mask pixels in one step of ``crop_and_resize``, which takes about 20 MB for them and their indices.
CHUNK_PIXELS = 1_000_000


class LocalMasks:
    """N masks of one image, usable as detectron2's ``Instances.gt_masks`` in place of ``BitMasks``.

    One flat array stores the pixels of every mask within its box. Indexing, also with duplicates, copies only
    boxes and offsets, so sampling 500 proposals takes no memory for masks.

    Attributes:
        storage: (P,) uint8, the masks' pixels row by row, 1 inside the cell; indexing shares it.
        boxes: (N, 4) int64, x0, y0, width, height of each mask's tight box in pixels of the image; zeros if
            the mask is empty.
        offsets: (N,) int64, the index in ``storage`` of each mask's first pixel.
        image_size: (height, width) of the image.
    """

    def __init__(
        self, storage: torch.Tensor, boxes: torch.Tensor, offsets: torch.Tensor, image_size: tuple[int, int]
    ) -> None:
        self.storage, self.boxes, self.offsets = storage, boxes, offsets
        self.image_size = (int(image_size[0]), int(image_size[1]))

    @classmethod
    def from_crops(cls, crops: Iterable[tuple[int, int, NDArray]], image_size: tuple[int, int]) -> LocalMasks:
        """Masks from (x, y, (h, w) array) triples; the array's top left pixel is at column x, row y.

        Raises:
            KitError: a mask has pixels outside the image.
        """
        boxes, pixels = [], []
        for x, y, mask in crops:
            top, bottom, left, right = _tight(mask)
            x, y, mask = x + left, y + top, mask[top:bottom, left:right]
            if mask.size and not (
                0 <= x <= image_size[1] - mask.shape[1] and 0 <= y <= image_size[0] - mask.shape[0]
            ):
                raise KitError(f"a mask at x {x}, y {y} of {mask.shape} leaves its image of {image_size}")
            boxes.append((x, y, right - left, bottom - top) if mask.size else (0, 0, 0, 0))
            pixels.append((mask != 0).ravel())
        storage = np.concatenate(pixels).view(np.uint8) if pixels else np.empty(0, np.uint8)
        return cls._concatenated(storage, np.array(boxes, np.int64).reshape(-1, 4), image_size)

    @classmethod
    def from_bits(
        cls, bits: NDArray[np.uint8], boxes: NDArray[np.int64], image_size: tuple[int, int]
    ) -> LocalMasks:
        """Masks from ``np.packbits`` of the ``storage`` that ``from_crops`` makes, and their ``boxes``."""
        pixels = int((boxes[:, 2] * boxes[:, 3]).sum())
        return cls._concatenated(np.unpackbits(bits, count=pixels), boxes, image_size)

    @classmethod
    def _concatenated(
        cls, storage: NDArray[np.uint8], boxes: NDArray[np.int64], image_size: tuple[int, int]
    ) -> LocalMasks:
        areas = boxes[:, 2] * boxes[:, 3]
        offsets = np.cumsum(areas) - areas
        return cls(torch.from_numpy(storage), torch.from_numpy(boxes), torch.from_numpy(offsets), image_size)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LocalMasks:
        """The same masks on another device."""
        storage, boxes, offsets = (
            t.to(device, non_blocking=non_blocking) for t in (self.storage, self.boxes, self.offsets)
        )
        return LocalMasks(storage, boxes, offsets, self.image_size)

    @property
    def device(self) -> torch.device:
        return self.storage.device

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, item: int | slice | torch.Tensor) -> LocalMasks:
        """The masks at an index, a slice, a bool vector or a vector of indices, which may repeat."""
        which = [item] if isinstance(item, int) else item
        return LocalMasks(self.storage, self.boxes[which], self.offsets[which], self.image_size)

    def __repr__(self) -> str:
        return f"LocalMasks(num_instances={len(self)}, image_size={self.image_size})"

    def get_bounding_boxes(self) -> Boxes:
        """The tight boxes, x0, y0, x1, y1 in pixels."""
        return Boxes(torch.cat([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], dim=1).float())

    @torch.no_grad()
    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """The mask head's targets: mask i within box i, resized to ``mask_size`` x ``mask_size``.

        The values are those of ``BitMasks.crop_and_resize``: ROIAlign with ``aligned=True`` and
        ``sampling_ratio=0`` (the mean of one sample for each pixel of a bin), then >= 0.5. The mean of
        bilinear samples on a grid separates into rows and columns, so each target is a small product ``rows @
        mask @ columns.T``. Only the order of additions differs from ROIAlign's, so a value within rounding of
        0.5 may fall on the other side.

        Args:
            boxes: (N, 4) x0, y0, x1, y1 in pixels of the image, one for each mask.
            mask_size: bins along each axis.

        Returns:
            (N, mask_size, mask_size) bool, on the masks' device.
        """
        if len(boxes) != len(self):
            raise ValueError(f"{len(boxes)} boxes for {len(self)} masks")
        boxes = boxes.to(self.device, torch.float32)
        targets = torch.zeros((len(self), mask_size, mask_size), dtype=torch.bool, device=self.device)
        # Under autocast the products would be in half precision.
        with torch.autocast(self.device.type, enabled=False):
            x_span, y_span = boxes[:, 0::2], boxes[:, 1::2]
            per_bin = [samples_per_bin(span, mask_size) for span in (x_span, y_span)]
            # All that the host has to know comes in one copy: each waits for the GPU.
            sizes = torch.stack([self.boxes[:, 2], self.boxes[:, 3], *per_bin]).long().cpu().numpy()
            frame_h, frame_w = self.image_size
            for order in _chunks(*sizes[:2]):
                width, height, most_x, most_y = sizes[:, order].max(axis=1).tolist()
                part = torch.from_numpy(order).to(self.device)
                local, pixels = self.boxes[part], self._spread(part, width, height)
                rows = _weights(y_span[part], mask_size, local[:, 1], height, frame_h, most_y)
                columns = _weights(x_span[part], mask_size, local[:, 0], width, frame_w, most_x)
                # 0.5 counts as inside, also where rounding has made it smaller.
                targets[part] = rows @ pixels @ columns.mT >= 0.5 - 1e-6
        return targets

    def _spread(self, part: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """(n, height, width) float32: the masks at indices ``part``, padded at the right and below."""
        local, device = self.boxes[part], self.device
        row, column = torch.arange(height, device=device), torch.arange(width, device=device)
        inside = (row[:, None] < local[:, 3, None, None]) & (column < local[:, 2, None, None])
        index = self.offsets[part, None, None] + row[:, None] * local[:, 2, None, None] + column
        return (self.storage[index.clamp_(max=len(self.storage) - 1)] * inside).float()


def _tight(mask: NDArray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (half-open) of an array's non-zero pixels; zeros if there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _chunks(width: NDArray[np.int64], height: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    """Indices of masks of similar size, given all masks' sizes in pixels; empty masks are left out."""
    order = np.argsort(np.maximum(width, height), kind="stable")
    order = order[width[order] > 0]
    first = 0
    while first < len(order):
        side_w = np.maximum.accumulate(width[order[first:]])
        side_h = np.maximum.accumulate(height[order[first:]])
        fits = side_w * side_h * np.arange(1, len(side_w) + 1) <= CHUNK_PIXELS
        # At most twice the side of the smallest, so that padding does not dominate a chunk.
        alike = np.maximum(side_w, side_h) <= max(2 * max(side_w[0], side_h[0]), 32)
        count = max(int((fits & alike).sum()), 1)
        yield order[first : first + count]
        first += count


def _weights(
    span: torch.Tensor, bins: int, origin: torch.Tensor, size: int, frame: int, most: int
) -> torch.Tensor:
    """The weight of each mask pixel along one axis in each bin of a box, sampled as ROIAlign does.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels.
        bins: bins along the axis.
        origin: (n,) the pixel at which each mask begins.
        size: of the masks along the axis, in pixels.
        frame: size of the image along the axis, in pixels.
        most: samples in a bin of the largest box.

    Returns:
        (n, bins, size) float32.
    """
    low, weight, share = samples(span, bins, frame, most)
    # Pixels before and after the mask go into extra columns, which the last line cuts off.
    column = (low - origin[:, None, None]).clamp_(-2, size) + 2
    table = torch.zeros((len(span), bins, size + 3), device=span.device)
    table.scatter_add_(2, column, share * (1 - weight))
    table.scatter_add_(2, (column + 1).clamp_(max=size + 2), share * weight)
    return table[..., 2 : size + 2]
