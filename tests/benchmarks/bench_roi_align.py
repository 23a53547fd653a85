"""The gradient of RoIAlign on the CPU, and a training step of the small model with it; torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import torch
from harness import Row, race

from kitlib import model as models
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.model import compat
from kitlib.model.roi_align import SparseGradientROIAlign

compat.apply()  # before detectron2 is imported
from detectron2.layers import ROIAlign  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

BOXES, SIDE, STRIDE, CELLS = 256, 256, 4, 60


@cache
def boxes(number: int, seed: int = 0, within: float = 190) -> torch.Tensor:
    """(number, 4) boxes of 10 to 60 pixels that begin within so many: 190 of an image of 256 x 256."""
    rng = torch.Generator().manual_seed(seed)
    start, extent = torch.rand(number, 2, generator=rng), 10 + 50 * torch.rand(number, 2, generator=rng)
    return torch.cat([start * within, start * within + extent], dim=1)


def gradient(layer: type[ROIAlign], channels: int) -> Callable[[], object]:
    """Back through one pooling of boxes from the finest level of two images."""
    images = torch.arange(BOXES)[:, None] % 2
    rois = torch.cat([images, boxes(BOXES)], dim=1)
    features = torch.randn(2, channels, SIDE // STRIDE, SIDE // STRIDE).requires_grad_()
    pooled = layer((7, 7), 1 / STRIDE, sampling_ratio=0)(features, rois)
    coming = torch.randn_like(pooled)
    return lambda: torch.autograd.grad(pooled, features, coming, retain_graph=True)


@cache
def batch() -> list[dict]:
    """Two images with square cells."""
    found = []
    for seed in (1, 2):
        cells = boxes(CELLS, seed).int()
        crops = [(x0, y0, torch.ones(y1 - y0, x1 - x0).numpy()) for x0, y0, x1, y1 in cells.tolist()]
        masks = LocalMasks.from_crops(crops, (SIDE, SIDE))
        labels = torch.zeros(CELLS, dtype=torch.int64)
        there = Instances((SIDE, SIDE), gt_boxes=Boxes(cells.float()), gt_classes=labels, gt_masks=masks)
        image = torch.randint(100, 156, (3, SIDE, SIDE), dtype=torch.uint8)
        found.append(
            {"image": image, "instances": there, "height": SIDE, "width": SIDE, "image_id": str(seed)}
        )
    return found


def step(layer: type[ROIAlign]) -> Callable[[], object]:
    """Forward and back through the small model, whose poolers work as ``layer`` does."""
    torch.manual_seed(0)
    model = models.build("tiny", 3).to(memory_format=torch.channels_last)

    def run() -> None:
        with EventStorage(), patch.object(SparseGradientROIAlign, "forward", layer.forward):
            sum(model(batch()).values()).backward()
        model.zero_grad()

    return run


@contextmanager
def one_core() -> Iterator[None]:
    """torchvision's gradient uses no more than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rows():
    """The rows of this module."""
    with one_core():
        for channels in (64, 256):
            work = f"{BOXES} boxes to 7 x 7, {channels} channels, one core; torchvision"
            ours, theirs = race(gradient(SparseGradientROIAlign, channels), gradient(ROIAlign, channels), 5)
            yield Row("RoIAlign's gradient", work, ours, theirs, bar=2)
        work = f"tiny, 2 x {SIDE} x {SIDE}, {CELLS} cells each, one core; with torchvision's gradient"
        yield Row("training step", work, *race(step(SparseGradientROIAlign), step(ROIAlign), 5), bar=1.05)
