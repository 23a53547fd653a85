"""From a network's raw instances to cells: masks pasted and encoded."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from harness import Row, peak_mib, race
from pycocotools import mask as coco

from kitlib.model import compat
from kitlib.predict import fuse
from kitlib.predict.cells import to_cells
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections

compat.apply()  # before detectron2 is imported
from detectron2.layers.mask_ops import paste_masks_in_image  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402

SIZE = (520, 704)
CELLS = 500


@cache
def instances(number: int = CELLS) -> Instances:
    """What a model finds in a crowded frame: boxes of 12 to 40 pixels, round soft masks."""
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, [670, 490], (number, 2)), rng.uniform(12, 40, (number, 2))
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    square = (1 / (1 + np.exp(8 * (x * x + y * y - 0.7)))).astype(np.float32)
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.from_numpy(np.hstack([corners, corners + sides])).float()),
        scores=torch.from_numpy(rng.uniform(0.05, 1, number)),
        pred_classes=torch.zeros(number, dtype=torch.int64),
        pred_masks=torch.from_numpy(np.tile(square, (number, 1, 1, 1))),
    )


def paste_ours(number: int = CELLS) -> tuple:
    """Cells, box by box."""
    found = Detections.from_instances(instances(number))
    return to_cells(found, fuse.alone(found), SIZE, PredictConfig(score_floor=0), ("cort",)).tables[0]


def paste_theirs() -> list:
    """detectron2's full-frame masks, then pycocotools."""
    found = instances()
    masks = paste_masks_in_image(found.pred_masks[:, 0], found.pred_boxes, SIZE, 0.5)
    return [coco.encode(np.asfortranarray(m)) for m in masks.numpy().view(np.uint8)]


def prepare_paste_ours():
    torch.set_num_threads(1)
    instances()
    return paste_ours


def prepare_paste_theirs():
    torch.set_num_threads(1)
    instances()
    return paste_theirs


def rows():
    """The rows of this module."""
    torch.set_num_threads(1)
    work = f"{CELLS} cells of a 704 x 520 frame; detectron2's paste, then pycocotools"
    yield Row("predicted masks to run lengths", work, *race(paste_ours, paste_theirs, 5), bar=5)
    memory = peak_mib(prepare_paste_ours), peak_mib(prepare_paste_theirs)
    yield Row("memory of masks to run lengths", work, *memory, unit="MiB", bar=10)
