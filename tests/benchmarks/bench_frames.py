"""Frames from image to run lengths: the kit beside detectron2's predictor and torchvision's Mask R-CNN.

The weights are random, so that nothing has to be downloaded or trained: all classes score nearly the same,
and each model finds as many instances as it may. A bias of the mask predictors makes masks fill their boxes,
which are as small as the anchors: masks of noise would have more runs than masks of cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from bench_predict import SIZE
from detectron2.engine import DefaultPredictor
from detectron2.modeling import GeneralizedRCNN
from harness import Row, race
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection.rpn import AnchorGenerator

from kitlib import model as models
from kitlib.model.architecture import to_cfg
from kitlib.predict.config import PredictConfig
from kitlib.predict.predictor import Predictor

CELLS, PROPOSALS = 300, 1000
CATEGORIES = ("astro", "cort", "shsy5y")


def image() -> NDArray[np.uint8]:
    """Noise of the grey levels of phase contrast."""
    return np.random.default_rng(0).normal(128, 12, SIZE).clip(0, 255).astype(np.uint8)


def network(preset: str) -> GeneralizedRCNN:
    """The kit's model with one mask branch and torchvision's numbers of proposals."""
    torch.manual_seed(0)
    limits = {"rpn_pre_nms_topk": (2000, PROPOSALS), "rpn_post_nms_topk": (2000, PROPOSALS)}
    model = models.build(preset, len(CATEGORIES), mask_stages="last", detections=CELLS, **limits).eval()
    nn.init.ones_(model.roi_heads.mask_head.predictor.bias)
    _damp(model, "conv3.norm.weight")
    return model


def torchvisions() -> MaskRCNN:
    """torchvision's model with the kit's anchors and as many instances."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(tuple((8 * 2**level,) for level in range(5)), ((0.5, 1.0, 2.0),) * 5)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=len(CATEGORIES) + 1,
        rpn_anchor_generator=anchors,
        min_size=min(SIZE),
        max_size=max(SIZE),
        box_score_thresh=0.05,
        box_nms_thresh=0.6,
        box_detections_per_img=CELLS,
    ).eval()
    nn.init.ones_(model.roi_heads.mask_predictor.mask_fcn_logits.bias)
    _damp(model, "bn3.weight")
    return model


def _damp(model: nn.Module, last_of_block: str) -> None:
    """Keep features of a network with random weights from growing with each residual block."""
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(last_of_block):
            values.data.fill_(0.2)


def by_the_kit(model: GeneralizedRCNN) -> Callable[[], int]:
    """From a frame to cells, which hold run lengths."""
    predictor, frame = Predictor([model], CATEGORIES, PredictConfig(max_cells=CELLS)), image()
    return lambda: len(predictor(frame).tables[0])


def by_detectron2(model: GeneralizedRCNN) -> Callable[[], int]:
    """The same network in detectron2's predictor, which pastes each mask on a full frame; encoded."""
    cfg = to_cfg(model.config)
    cfg.MODEL.WEIGHTS, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = "", min(SIZE), max(SIZE)
    predictor, frame = DefaultPredictor(cfg), np.repeat(image()[..., None], 3, axis=2)
    predictor.model.load_state_dict(model.state_dict())
    return lambda: encode(predictor(frame)["instances"].pred_masks)


def by_torchvision(model: MaskRCNN) -> Callable[[], int]:
    """The same steps with torchvision, whose soft masks are cut at one half; encoded."""
    frame = torch.from_numpy(image()).expand(3, -1, -1) / 255

    @torch.inference_mode()
    def predict() -> int:
        return encode(model([frame])[0]["masks"][:, 0] >= 0.5)

    return predict


def encode(masks: torch.Tensor) -> int:
    """How many full-frame masks became run lengths of COCO."""
    return len([coco.encode(np.asfortranarray(mask)) for mask in masks.numpy().view(np.uint8)])


def rows() -> Iterator[Row]:
    """The rows of this module."""
    size = f"{SIZE[0]} x {SIZE[1]}, {CELLS} instances, random weights"
    tiny, r50 = network("tiny"), network("r50")
    peer = "detectron2's DefaultPredictor with the same weights, then pycocotools"
    yield _race(f"tiny, {size}; {peer}", by_the_kit(tiny), by_detectron2(tiny))
    peer = "torchvision's maskrcnn_resnet50_fpn, not the same work: one box head, then pycocotools"
    yield _race(f"r50, three box heads, {size}; {peer}", by_the_kit(r50), by_torchvision(torchvisions()))


def _race(work: str, ours: Callable[[], int], peer: Callable[[], int]) -> Row:
    """Frames a second of both, which have to find about the same number of instances."""
    found = ours(), peer()
    if min(found) < 0.9 * CELLS:
        raise AssertionError(f"{work}: {found[0]} and {found[1]} instances, not {CELLS}")
    seconds_ours, seconds_peer = race(ours, peer, 2, warm=False)
    return Row("prediction", work, 1 / seconds_ours, 1 / seconds_peer, unit="frames/s", better="higher")
