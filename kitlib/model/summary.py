"""What a network is made of, read off the network itself: stages, channels, strides, parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from kitlib.model.detector import WeightedRCNN
    from kitlib.model.presets import ModelConfig


@dataclass(frozen=True)
class Block:
    """One part of a network.

    Attributes:
        name: "stem", "res2", "p2", "proposals", "box 1", "mask 1", ...
        kind: "backbone", "pyramid", "proposals", "box" or "mask".
        detail: in words: kernel, layers, IoU.
        channels: of its output; of a head, of its inner layers.
        stride: pixels of the input from one position of its output to the next; None for a head.
        parameters: their number.
    """

    name: str
    kind: str
    detail: str
    channels: int
    stride: int | None
    parameters: int


def summarise(config: ModelConfig) -> list[Block]:
    """The blocks of a network, from the image to the masks.

    The network is built without memory for its weights, so that the largest one takes a second.

    Args:
        config: what it is built from.
    """
    import torch
    from detectron2.modeling import build_model

    from kitlib.model.architecture import to_cfg

    cfg = to_cfg(config)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    return [*_backbone(model), *_pyramid(model), *_proposals(model), *_heads(model)]


def _backbone(model: WeightedRCNN) -> list[Block]:
    bottom_up = model.backbone.bottom_up
    parts, outputs = dict(bottom_up.named_children()), bottom_up.output_shape()
    if not outputs.keys() <= parts.keys():
        # The modules of a timm model have other names than its outputs.
        size = _parameters(bottom_up)
        blocks = [Block(n, "backbone", "", s.channels, s.stride, 0) for n, s in outputs.items()]
        return [replace(blocks[0], parameters=size, detail="with all that follow"), *blocks[1:]]
    stem = parts["stem"]
    blocks = [Block("stem", "backbone", "7 x 7, pooled", stem.out_channels, stem.stride, _parameters(stem))]
    for name, shape in outputs.items():
        detail, size = f"{len(parts[name])} blocks", _parameters(parts[name])
        blocks.append(Block(name, "backbone", detail, shape.channels, shape.stride, size))
    return blocks


def _pyramid(model: WeightedRCNN) -> list[Block]:
    parts = dict(model.backbone.named_children())
    blocks = []
    for name, shape in model.backbone.output_shape().items():
        level = name.removeprefix("p")
        own = [parts[key] for key in (f"fpn_lateral{level}", f"fpn_output{level}") if key in parts]
        detail, size = "" if own else "pooled", sum(map(_parameters, own))
        blocks.append(Block(name, "pyramid", detail, shape.channels, shape.stride, size))
    return blocks


def _proposals(model: WeightedRCNN) -> list[Block]:
    head = model.proposal_generator.rpn_head
    deltas = head.anchor_deltas
    detail = f"{deltas.out_channels // 4} anchors"
    return [Block("proposals", "proposals", detail, deltas.in_channels, None, _parameters(head))]


def _heads(model: WeightedRCNN) -> list[Block]:
    roi = model.roi_heads
    blocks = []
    stages = zip(roi.box_head, roi.box_predictor, roi.proposal_matchers, strict=True)
    for number, (box, predictor, matcher) in enumerate(stages, 1):
        # The first threshold is minus infinity.
        detail, size = f"IoU {matcher.thresholds[1]:g}", _parameters(box) + _parameters(predictor)
        blocks.append(Block(f"box {number}", "box", detail, box.output_shape.channels, None, size))
    masks = [*roi.mask_head_stages, roi.mask_head]
    for number, mask in enumerate(masks, len(blocks) - len(masks) + 1):
        channels, size = mask.predictor.in_channels, _parameters(mask)
        blocks.append(Block(f"mask {number}", "mask", "28 x 28", channels, None, size))
    return blocks


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
