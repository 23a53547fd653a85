"""A training sample as a worker process sends it to the training: arrays, in few bytes.

Arrays are sent through a pipe. Tensors would need shared memory, of which a container has 64 MB by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from numpy.typing import NDArray

from kitlib.inputs.ignored import IgnoredArea
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.inputs.patch import Patch
from kitlib.records import Frame


@dataclass(frozen=True, slots=True)
class PackedSample:
    """One image and its cells.

    Attributes:
        image: (h, w) uint8 grey levels.
        boxes: (N, 4) int64, x0, y0, width, height of each cell's tight box in pixels.
        mask_bits: the pixels of all masks within their boxes, row by row, packed eight to a byte.
        labels: (N,) int64 class indices.
        ignored_bits: the (h, w) ignored area, packed eight pixels to a byte; None if there is none.
        image_id: the frame's id.
        frame_size: (height, width) of the whole frame.
        weight: of the image in the loss.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    mask_bits: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ignored_bits: NDArray[np.uint8] | None
    image_id: str
    frame_size: tuple[int, int]
    weight: float

    @classmethod
    def from_patch(cls, patch: Patch, image: NDArray[np.uint8], frame: Frame) -> PackedSample:
        """Pack a patch.

        Args:
            patch: whose cells are packed.
            image: (h, w) uint8, in place of the patch's.
            frame: that the patch is a part of.
        """
        masks = LocalMasks.from_crops(((c.x, c.y, c.mask) for c in patch.cells), patch.size)
        ignore = patch.ignore
        return cls(
            # torch.from_numpy needs both.
            np.require(image, requirements=["C_CONTIGUOUS", "WRITEABLE"]),
            masks.boxes.numpy(),
            np.packbits(masks.storage.numpy()),
            np.array([cell.label for cell in patch.cells], np.int64),
            np.packbits(ignore) if ignore is not None and ignore.any() else None,
            frame.id,
            (frame.height, frame.width),
            frame.weight,
        )

    def unpack(self) -> dict[str, Any]:
        """The sample as input of a detectron2 model, on the CPU.

        Returns:
            ``image``: (1, h, w) uint8, which the model's normalisation turns into three channels;
            ``instances``: ``gt_boxes`` (tight, x0 y0 x1 y1), ``gt_classes``, ``gt_masks`` (LocalMasks) and,
                if there is an ignored area, ``gt_ignored`` (IgnoredArea);
            ``image_id``; ``height`` and ``width`` of the frame; ``weight``.
        """
        size = self.image.shape
        masks = LocalMasks.from_bits(self.mask_bits, self.boxes, size)
        classes = torch.from_numpy(self.labels)
        cells = Instances(size, gt_boxes=masks.get_bounding_boxes(), gt_classes=classes, gt_masks=masks)
        if self.ignored_bits is not None:
            ignored = np.unpackbits(self.ignored_bits, count=self.image.size).reshape(size).view(bool)
            cells.gt_ignored = IgnoredArea.from_mask(ignored, len(cells))
        return {
            "image": torch.from_numpy(self.image)[None],
            "instances": cells,
            "image_id": self.image_id,
            "height": self.frame_size[0],
            "width": self.frame_size[1],
            "weight": self.weight,
        }
