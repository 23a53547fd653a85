"""Random weights that compute as trained ones do, so that a step takes as long as it will take."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn


def settle(model: Any) -> None:
    """Let no block and no stage of a model of ``kitlib.model`` move far from its input, in place.

    Frozen normalisation does not bound what random weights make: 50 residual blocks overflow fp16. Each block
    begins as the identity instead (Goyal et al. 2017, section 5.1). And each stage leaves its boxes where
    they are, as a trained one nearly does, so that later stages match as many cells.
    """
    with torch.no_grad():
        for block in model.backbone.modules():
            last = block.conv3 if isinstance(block, BottleneckBlock) else None
            if last is not None and isinstance(last.norm, FrozenBatchNorm2d):
                last.norm.weight.zero_()
        for predictor in model.roi_heads.box_predictor:
            nn.init.zeros_(predictor.bbox_pred.weight)


def expect_cells(model: Any) -> None:
    """Let every proposal have scores above any threshold that is in use, in place."""
    with torch.no_grad():
        for predictor in model.roi_heads.box_predictor:
            # The last class is the background.
            predictor.cls_score.bias[-1:].fill_(-5.0)
