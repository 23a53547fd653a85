"""A training step of the small model, and the matching of its anchors; detectron2's own classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from bench_roi_align import CELLS, SIDE, batch, boxes
from detectron2.engine import SimpleTrainer
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.matcher import Matcher
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from harness import Row, peak_mib, race

from kitlib import model as models
from kitlib.model.architecture import to_cfg
from kitlib.model.matching import match
from kitlib.train import optim
from kitlib.train.config import OptimConfig
from kitlib.train.processes import Processes
from kitlib.train.step import Stepper

CROWD, ANCHORS = 768, 260_000
RULE = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)


@cache
def with_bitmasks() -> list[dict[str, Any]]:
    """The images of ``batch`` with detectron2's masks."""
    found = []
    for sample in batch():
        cells = sample["instances"]
        whole = torch.zeros(CELLS, SIDE, SIDE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(whole, cells.gt_boxes.tensor.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        fields = {**cells.get_fields(), "gt_masks": BitMasks(whole)}
        found.append({**sample, "instances": Instances(cells.image_size, **fields)})
    return found


def our_step() -> Callable[[], object]:
    """A step of the kit: its model, its masks, its optimiser."""
    torch.manual_seed(0)
    model = models.build("tiny", 3, mask_stages="last").to(memory_format=torch.channels_last)
    alone = Processes(rank=0, world=1, device=torch.device("cpu"))
    step = Stepper(model, optim.build(model, OptimConfig("sgd"), 1e-3), alone)

    def run() -> None:
        with EventStorage():
            step(batch())

    return run


def their_step() -> Callable[[], object]:
    """A step of detectron2's trainer with its own classes, of the same sizes."""
    torch.manual_seed(0)
    cfg = to_cfg(models.build("tiny", 3, mask_stages="last").config)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PROPOSAL_GENERATOR.NAME = "GeneralizedRCNN", "RPN"
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_MASK_HEAD.NAME = "CascadeROIHeads", "MaskRCNNConvUpsampleHead"
    model = META_ARCH_REGISTRY.get("GeneralizedRCNN")(cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    trainer = SimpleTrainer(model, iter(lambda: with_bitmasks(), None), optimizer)
    trainer.iter = 0

    def run() -> None:
        with EventStorage():
            trainer.run_step()

    return run


def in_pieces() -> Callable[[], object]:
    """The anchors of an image of 520 x 704 at twice its size with many cells, as the kit matches them."""
    cells, anchors = Boxes(boxes(CROWD, 1, 1000)), Boxes(boxes(ANCHORS, 2, 1000))
    return lambda: match(cells, anchors, RULE)


def at_once() -> Callable[[], object]:
    """The same by detectron2's matcher."""
    cells, anchors = Boxes(boxes(CROWD, 1, 1000)), Boxes(boxes(ANCHORS, 2, 1000))
    return lambda: RULE(pairwise_iou(cells, anchors))


def rows():
    """The rows of this module."""
    work = f"tiny, 2 x {SIDE} x {SIDE}, {CELLS} cells each; detectron2's SimpleTrainer and classes"
    ours, theirs = race(our_step(), their_step(), 5)
    yield Row("training", work, 2 / ours, 2 / theirs, unit="1/s", better="higher", bar=1.05)
    work = f"{CROWD} cells, {ANCHORS:,} anchors; detectron2's matcher"
    yield Row("matching anchors", work, *race(in_pieces(), at_once(), 2, warm=False), bar=1)
    yield Row("memory of matching", work, peak_mib(in_pieces), peak_mib(at_once), unit="MiB", bar=10)
