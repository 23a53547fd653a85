"""From the networks' raw instances to cells: pasting masks, and fusing what several sources see."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from harness import Row, Skip, peak_mib, race
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
SOURCES = 8


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


@cache
def seen_by_all() -> Detections:
    """The crowd as several sources see it, each a little elsewhere."""
    rng, found = np.random.default_rng(1), Detections.from_instances(instances())
    parts = []
    for source in range(SOURCES):
        boxes = (found.boxes + rng.normal(0, 1, found.boxes.shape)).clip(0, 703)
        scores = (found.scores + rng.normal(0, 0.05, len(found))).clip(0.01, 1)
        parts.append(Detections(boxes, scores, found.classes, found.squares, np.full(len(found), source)))
    return Detections.concat(parts)


def fuse_ours() -> fuse.Fused:
    """Weighted boxes fusion with its scores, classes, agreement and members."""
    return fuse.wbf(seen_by_all(), SOURCES, 0.55)


def fuse_theirs(fusion) -> tuple:
    """The same by the package of the method's authors, which fuses boxes alone."""
    found = seen_by_all()
    parts = [found.take(found.sources == s) for s in range(SOURCES)]
    boxes = [p.boxes / 704 for p in parts]
    return fusion(boxes, [p.scores for p in parts], [p.classes for p in parts], iou_thr=0.55)


def rows():
    """The rows of this module."""
    torch.set_num_threads(1)
    work = f"{CELLS} cells of a 704 x 520 frame; detectron2 paste + encode"
    yield Row("paste", work, *race(paste_ours, paste_theirs, 5), bar=5)
    memory = peak_mib(prepare_paste_ours), peak_mib(prepare_paste_theirs)
    yield Row("paste memory", work, *memory, unit="MiB", bar=10)
    try:
        from ensemble_boxes import weighted_boxes_fusion
    except ImportError:
        raise Skip("weighted boxes fusion has no peer; pip install ensemble-boxes") from None
    times = race(fuse_ours, lambda: fuse_theirs(weighted_boxes_fusion), 3)
    yield Row("wbf", f"{SOURCES} sources of {CELLS} cells; ensemble-boxes", *times, bar=1)
