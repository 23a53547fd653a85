"""A batch in pieces whose gradients add up to the batch's: for accumulation, and for when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances

from kitlib.errors import KitError
from kitlib.inputs.mask_targets import LocalMasks

Sample = dict[str, Any]
# A piece is (its share of the batch's loss, its samples).
Piece = tuple[float, list[Sample]]

MIN_VISIBLE = 0.25  # a cell stays in a cut image when more than this share of it does, as in training crops


def split(batch: Sequence[Sample], count: int) -> list[Piece]:
    """The batch in ``count`` equal pieces.

    Raises:
        KitError: it cannot be divided so.
    """
    size, rest = divmod(len(batch), count)
    if rest or not size:
        raise KitError(
            f"{len(batch)} images a process cannot be accumulated in {count} equal pieces; "
            "choose accumulate so that it divides images_per_batch / processes"
        )
    return [(size / len(batch), list(batch[i : i + size])) for i in range(0, len(batch), size)]


def smaller(pieces: Sequence[Piece]) -> list[Piece]:
    """Every piece in two: half of its samples each or, of a single one, half of its image each."""
    halves: list[Piece] = []
    for share, samples in pieces:
        middle = len(samples) // 2
        parts = [samples[:middle], samples[middle:]] if middle else [[half] for half in cut(samples[0])]
        whole = sum(len(p) for p in parts)
        halves += [(share * len(p) / whole, p) for p in parts]
    return halves


def cut(sample: Sample) -> list[Sample]:
    """The two halves of a sample's image, cut across its longer side, with the cells left in each."""
    height, width = sample["image"].shape[1:]
    if width >= height:
        views = [(0, 0, width // 2, height), (width // 2, 0, width, height)]
    else:
        views = [(0, 0, width, height // 2), (0, height // 2, width, height)]
    return [_view(sample, *view) for view in views]


def _view(sample: Sample, left: int, top: int, right: int, bottom: int) -> Sample:
    masks, kept, crops = sample["instances"].gt_masks, [], []
    for index in range(len(masks)):
        x, y, mask = masks.crop(index)
        x0, y0 = max(left - x, 0), max(top - y, 0)
        inside = mask[y0 : max(bottom - y, 0), x0 : max(right - x, 0)]
        if inside.sum() > MIN_VISIBLE * mask.sum():
            kept.append(index)
            crops.append((x + x0 - left, y + y0 - top, inside.numpy()))
    size = (bottom - top, right - left)
    part = LocalMasks.from_crops(crops, size)
    classes = sample["instances"].gt_classes[torch.tensor(kept, dtype=torch.int64)]
    instances = Instances(size, gt_boxes=part.get_bounding_boxes(), gt_classes=classes, gt_masks=part)
    if sample["instances"].has("gt_ignored"):
        area = sample["instances"].gt_ignored
        instances.gt_ignored = area.crop(left, top, right, bottom, len(instances))
    return {
        **sample,
        "image": sample["image"][:, top:bottom, left:right].contiguous(),
        "instances": instances,
    }
