"""A training step of the small model, and the matching of its anchors; detectron2's own classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from harness import Row, peak_mib, race

from kitlib import model as models
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.model import compat

compat.apply()  # before detectron2 is imported
from detectron2.engine import SimpleTrainer  # noqa: E402
from detectron2.modeling import META_ARCH_REGISTRY  # noqa: E402
from detectron2.modeling.matcher import Matcher  # noqa: E402
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from kitlib.model.architecture import to_cfg  # noqa: E402
from kitlib.model.matching import match  # noqa: E402
from kitlib.train import optim  # noqa: E402
from kitlib.train.config import OptimConfig  # noqa: E402
from kitlib.train.processes import Processes  # noqa: E402
from kitlib.train.step import Stepper  # noqa: E402

SIDE, CELLS, CROWD, ANCHORS = 256, 60, 768, 260_000
RULE = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)


def boxes(number: int, seed: int, extent: float = 190) -> torch.Tensor:
    """(number, 4) boxes of 10 to 60 pixels that begin within ``extent`` pixels."""
    rng = torch.Generator().manual_seed(seed)
    start = torch.rand(number, 2, generator=rng) * extent
    return torch.cat([start, start + 10 + 50 * torch.rand(number, 2, generator=rng)], dim=1)


@cache
def batch(bitmasks: bool) -> list[dict[str, Any]]:
    """Two images with square cells."""
    found = []
    for seed in (1, 2):
        cells = boxes(CELLS, seed).int()
        crops = [(x0, y0, torch.ones(y1 - y0, x1 - x0).numpy()) for x0, y0, x1, y1 in cells.tolist()]
        there = Instances((SIDE, SIDE), gt_boxes=Boxes(cells.float()))
        there.gt_classes = torch.zeros(CELLS, dtype=torch.int64)
        there.gt_masks = LocalMasks.from_crops(crops, (SIDE, SIDE))
        if bitmasks:
            whole = torch.zeros(CELLS, SIDE, SIDE, dtype=torch.bool)
            for mask, (x0, y0, x1, y1) in zip(whole, cells.tolist(), strict=True):
                mask[y0:y1, x0:x1] = True
            there.gt_masks = BitMasks(whole)
        image = torch.randint(100, 156, (3, SIDE, SIDE), dtype=torch.uint8)
        size = {"height": SIDE, "width": SIDE}
        found.append({"image": image, "instances": there, "image_id": str(seed), **size})
    return found


def our_step() -> Callable[[], object]:
    """A step of the kit: its model, its masks, its optimiser."""
    torch.manual_seed(0)
    model = models.build("tiny", 3, mask_stages="last").to(memory_format=torch.channels_last)
    alone = Processes(rank=0, world=1, device=torch.device("cpu"))
    step = Stepper(model, optim.build(model, OptimConfig("sgd"), 1e-3), alone)

    def run() -> None:
        with EventStorage():
            step(batch(bitmasks=False))

    return run


def their_step() -> Callable[[], object]:
    """A step of detectron2's trainer with its own classes, of the same sizes."""
    torch.manual_seed(0)
    cfg = to_cfg(models.build("tiny", 3, mask_stages="last").config)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PROPOSAL_GENERATOR.NAME = "GeneralizedRCNN", "RPN"
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_MASK_HEAD.NAME = "CascadeROIHeads", "MaskRCNNConvUpsampleHead"
    model = META_ARCH_REGISTRY.get("GeneralizedRCNN")(cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    trainer = SimpleTrainer(model, iter(lambda: batch(bitmasks=True), None), optimizer)
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
