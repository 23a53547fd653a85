"""The masks of an image's cells as training wants them: each within its box, never a stack of full frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.model.roi_align import samples

# Mask pixels that one step of ``crop_and_resize`` spreads out: some 20 MB with their places.
CHUNK_PIXELS = 1_000_000


class LocalMasks:
    """N masks of one image, usable as detectron2's ``Instances.gt_masks`` in place of ``BitMasks``.

    Every mask is kept within its own box, all of them in one flat array. Indexing, with duplicates too,
    copies boxes and offsets only: sampling 500 proposals costs no mask memory.

    Attributes:
        storage: (P,) uint8, the masks' pixels row by row, 1 inside the cell; shared by everything indexed
            from it.
        boxes: (N, 4) int64, x0, y0, width, height of each mask in pixels of the image, tight; zeros if it
            is empty.
        offsets: (N,) int64, where each mask begins in ``storage``.
        image_size: (height, width) of the image.
    """

    def __init__(
        self, storage: torch.Tensor, boxes: torch.Tensor, offsets: torch.Tensor, image_size: tuple[int, int]
    ) -> None:
        self.storage, self.boxes, self.offsets = storage, boxes, offsets
        self.image_size = (int(image_size[0]), int(image_size[1]))

    # ------------------------------------------------------------------------------------------ making

    @classmethod
    def from_crops(cls, crops: Iterable[tuple[int, int, NDArray]], image_size: tuple[int, int]) -> LocalMasks:
        """Masks from (x, y, (h, w) array) triples: the array's top left pixel lies at column x, row y.

        Arrays are trimmed to what is non-zero in them.

        Raises:
            KitError: a mask has pixels outside the image.
        """
        boxes, pixels = [], []
        for x, y, mask in crops:
            top, bottom, left, right = tight(mask)
            x, y, mask = x + left, y + top, mask[top:bottom, left:right]
            if mask.size and not (
                0 <= x <= image_size[1] - mask.shape[1] and 0 <= y <= image_size[0] - mask.shape[0]
            ):
                raise KitError(f"a mask at x {x}, y {y} of {mask.shape} leaves its image of {image_size}")
            boxes.append((x, y, right - left, bottom - top) if mask.size else (0, 0, 0, 0))
            pixels.append((mask != 0).ravel())
        storage = np.concatenate(pixels).view(np.uint8) if pixels else np.empty(0, np.uint8)
        return cls._one_after_the_other(storage, np.array(boxes, np.int64).reshape(-1, 4), image_size)

    @classmethod
    def from_bits(
        cls, bits: NDArray[np.uint8], boxes: NDArray[np.int64], image_size: tuple[int, int]
    ) -> LocalMasks:
        """Masks from ``np.packbits`` of the ``storage`` that ``from_crops`` makes, and their ``boxes``."""
        pixels = int((boxes[:, 2] * boxes[:, 3]).sum())
        return cls._one_after_the_other(np.unpackbits(bits, count=pixels), boxes, image_size)

    @classmethod
    def _one_after_the_other(
        cls, storage: NDArray[np.uint8], boxes: NDArray[np.int64], image_size: tuple[int, int]
    ) -> LocalMasks:
        areas = boxes[:, 2] * boxes[:, 3]
        offsets = np.cumsum(areas) - areas
        return cls(torch.from_numpy(storage), torch.from_numpy(boxes), torch.from_numpy(offsets), image_size)

    @classmethod
    def from_rles(cls, rles: Sequence[rle.RLE], image_size: tuple[int, int]) -> LocalMasks:
        """Masks of whole frames, box by box."""
        boxes = rle.boxes(rles)
        crops = zip(boxes[:, :2].tolist(), rle.crops(rles, boxes), strict=True)
        return cls.from_crops(((x, y, crop) for (x, y), crop in crops), image_size)

    @staticmethod
    def cat(masks: Sequence[LocalMasks]) -> LocalMasks:
        """All masks of several of one image size; storages that are the same are kept once.

        Raises:
            KitError: the sizes of the images differ.
        """
        sizes = {m.image_size for m in masks}
        if len(sizes) != 1:
            raise KitError(f"masks of images of different sizes cannot be joined: {sorted(sizes)}")
        storages: dict[int, tuple[torch.Tensor, int]] = {}
        end = 0
        for m in masks:
            if id(m.storage) not in storages:
                storages[id(m.storage)] = (m.storage, end)
                end += len(m.storage)
        only = next(iter(storages.values()))[0]
        storage = only if len(storages) == 1 else torch.cat([s for s, _ in storages.values()])
        offsets = torch.cat([m.offsets + storages[id(m.storage)][1] for m in masks])
        return LocalMasks(storage, torch.cat([m.boxes for m in masks]), offsets, sizes.pop())

    # -------------------------------------------------------------------------------- as detectron2 asks

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LocalMasks:
        """The same masks on another device."""
        moved = (t.to(device, non_blocking=non_blocking) for t in (self.storage, self.boxes, self.offsets))
        return LocalMasks(*moved, self.image_size)

    @property
    def device(self) -> torch.device:
        return self.storage.device

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, item: int | slice | torch.Tensor) -> LocalMasks:
        """The masks that a number, a slice, a bool vector or a vector of numbers (repeats allowed) names."""
        if isinstance(item, int):
            item = [item]
        return LocalMasks(self.storage, self.boxes[item], self.offsets[item], self.image_size)

    def __repr__(self) -> str:
        return f"LocalMasks(num_instances={len(self)}, image_size={self.image_size})"

    def nonempty(self) -> torch.Tensor:
        """(N,) bool: which masks have at least one pixel."""
        return self.boxes[:, 2] > 0

    def get_bounding_boxes(self) -> Boxes:
        """The tight boxes, x0, y0, x1, y1 in pixels."""
        return Boxes(torch.cat([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], dim=1).float())

    def crop(self, index: int) -> tuple[int, int, torch.Tensor]:
        """Column, row and (h, w) pixels of one mask within its box."""
        x, y, w, h = self.boxes[index].tolist()
        start = int(self.offsets[index])
        return x, y, self.storage[start : start + w * h].view(h, w)

    @torch.no_grad()
    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """The mask head's targets: mask i within box i, resized to ``mask_size`` x ``mask_size``.

        The same values as ``BitMasks.crop_and_resize``: ROIAlign with ``aligned=True`` and
        ``sampling_ratio=0`` (as many samples a bin as it has pixels, averaged), then >= 0.5. Averages of
        bilinear samples on a grid separate into rows and columns, so each target is one small product
        ``rows @ mask @ columns.T``. Only the order of additions differs from ROIAlign's: a value that is
        0.5 but for rounding may fall on the other side.

        Args:
            boxes: (N, 4) x0, y0, x1, y1 in pixels of the image, one for each mask.

        Returns:
            (N, mask_size, mask_size) bool, on the masks' device.
        """
        if len(boxes) != len(self):
            raise ValueError(f"{len(boxes)} boxes for {len(self)} masks")
        boxes = boxes.to(self.device, torch.float32)
        targets = torch.zeros((len(self), mask_size, mask_size), dtype=torch.bool, device=self.device)
        # Under autocast the products would be taken in half precision.
        with torch.autocast(self.device.type, enabled=False):
            for part, width, height in _chunks(self.boxes):
                part = part.to(self.device)
                local, pixels = self.boxes[part], self._spread(part, width, height)
                frame_h, frame_w = self.image_size
                rows = _weights(boxes[part][:, 1::2], mask_size, local[:, 1], height, frame_h)
                columns = _weights(boxes[part][:, 0::2], mask_size, local[:, 0], width, frame_w)
                # A half counts as inside, even when rounding has taken 1e-7 from it.
                targets[part] = rows @ pixels @ columns.mT >= 0.5 - 1e-6
        return targets

    def _spread(self, part: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """(n, height, width) float32: the masks numbered ``part``, each at the top left, zeros around."""
        local, device = self.boxes[part], self.device
        row, column = torch.arange(height, device=device), torch.arange(width, device=device)
        inside = (row[:, None] < local[:, 3, None, None]) & (column < local[:, 2, None, None])
        place = self.offsets[part, None, None] + row[:, None] * local[:, 2, None, None] + column
        return (self.storage[place.clamp_(max=len(self.storage) - 1)] * inside).float()


def tight(mask: NDArray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (half-open) of what is non-zero in an array; zeros if nothing is."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _chunks(boxes: torch.Tensor) -> Iterable[tuple[torch.Tensor, int, int]]:
    """Numbers of masks of like size, with their largest width and height; empty masks are left out."""
    width, height = boxes[:, 2].cpu().numpy(), boxes[:, 3].cpu().numpy()
    order = np.argsort(np.maximum(width, height), kind="stable")
    order = order[width[order] > 0]
    first = 0
    while first < len(order):
        side_w = np.maximum.accumulate(width[order[first:]])
        side_h = np.maximum.accumulate(height[order[first:]])
        fits = side_w * side_h * np.arange(1, len(side_w) + 1) <= CHUNK_PIXELS
        # Twice the side of the smallest: a chunk spends its time on masks, not on the space around them.
        alike = np.maximum(side_w, side_h) <= max(2 * max(side_w[0], side_h[0]), 32)
        count = max(int((fits & alike).sum()), 1)
        yield torch.from_numpy(order[first : first + count]), int(side_w[count - 1]), int(side_h[count - 1])
        first += count


def _weights(span: torch.Tensor, bins: int, origin: torch.Tensor, size: int, frame: int) -> torch.Tensor:
    """How much each mask pixel along one axis counts in each bin of a box, sampled as ROIAlign does.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels.
        origin: (n,) the pixel at which each mask begins.
        size: pixels along the masks' axis.
        frame: pixels along the image's axis.

    Returns:
        (n, bins, size) float32.
    """
    low, weight, share = samples(span, bins, frame)
    # Pixels left or right of the mask's own fall into the two spare columns, cut off below.
    place = (low - origin[:, None, None]).clamp_(-2, size) + 2
    table = torch.zeros((len(span), bins, size + 3), device=span.device)
    table.scatter_add_(2, place, share * (1 - weight))
    table.scatter_add_(2, (place + 1).clamp_(max=size + 2), share * weight)
    return table[..., 2 : size + 2]
