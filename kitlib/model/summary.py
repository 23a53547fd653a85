"""What a network is made of, read off the network itself: stages, channels, strides, parameters."""

from __future__ import annotations

from dataclasses import dataclass
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
    parts = dict(bottom_up.named_children())
    outputs = bottom_up.output_shape()
    known = [name for name in outputs if name in parts]
    if not known:
        # A timm model has no detectron2 stages; its outputs are what is known of it.
        return [Block(name, "backbone", "", shape.channels, shape.stride, 0) for name, shape in outputs.items()]
    stem = parts["stem"]
    first = Block("stem", "backbone", "7 x 7, pooled", stem.out_channels, stem.stride, _parameters(stem))
    return [first, *(
        Block(name, "backbone", f"{len(parts[name])} blocks", shape.channels, shape.stride, _parameters(parts[name]))
        for name, shape in outputs.items()
    )]  # fmt: skip


def _pyramid(model: WeightedRCNN) -> list[Block]:
    parts = dict(model.backbone.named_children())
    blocks = []
    for name, shape in model.backbone.output_shape().items():
        level = name.removeprefix("p")
        own = [module for key, module in parts.items() if key in (f"fpn_lateral{level}", f"fpn_output{level}")]
        detail = "" if own else "pooled"
        blocks.append(
            Block(name, "pyramid", detail, shape.channels, shape.stride, sum(map(_parameters, own)))
        )
    return blocks


def _proposals(model: WeightedRCNN) -> list[Block]:
    head = model.proposal_generator.rpn_head
    anchors = head.anchor_deltas.out_channels // 4
    return [
        Block(
            "proposals",
            "proposals",
            f"{anchors} anchors a position",
            head.anchor_deltas.in_channels,
            None,
            _parameters(head),
        )
    ]


def _heads(model: WeightedRCNN) -> list[Block]:
    roi = model.roi_heads
    masks = [*roi.mask_head_stages, roi.mask_head]
    blocks = []
    for number, (box, predictor, matcher) in enumerate(
        zip(roi.box_head, roi.box_predictor, roi.proposal_matchers, strict=True), 1
    ):
        iou = matcher.thresholds[1]
        size = _parameters(box) + _parameters(predictor)
        blocks.append(Block(f"box {number}", "box", f"IoU {iou:g}", box.output_shape.channels, None, size))
    first = len(blocks) - len(masks) + 1
    for number, mask in enumerate(masks, first):
        blocks.append(
            Block(f"mask {number}", "mask", "28 x 28", mask.predictor.in_channels, None, _parameters(mask))
        )
    return blocks


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
