"""Inputs for models: frames of bright rectangles, whose boxes and masks are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kitlib.model import compat

compat.apply()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def storage() -> Iterator[Any]:
    """detectron2's heads log to one, and fail without."""
    from detectron2.utils.events import EventStorage

    with EventStorage() as events:
        yield events


@pytest.fixture
def item() -> Callable[..., dict[str, Any]]:
    """``item(cells, size=64, seed=0, classes=3)``: a model's input with rectangles of 8-20 px."""
    from detectron2.structures import BitMasks, Boxes, Instances

    def make(cells: int, size: int = 64, seed: int = 0, classes: int = 3) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, size - 20, (cells, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(8, 21, (cells, 2), generator=generator)], 1)
        masks = torch.zeros(cells, size, size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(boxes.float())
        instances.gt_classes = torch.randint(0, classes, (cells,), generator=generator)
        instances.gt_masks = BitMasks(masks)
        image = (120.0 + 40.0 * masks.any(0)).expand(3, size, size).clone()
        return {"image": image, "instances": instances, "height": size, "width": size}

    return make
