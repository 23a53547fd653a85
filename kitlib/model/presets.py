"""The models by name, and the options in which a model may differ from its preset. Imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from kitlib import config
from kitlib.config import Float, Int, configuration
from kitlib.errors import unknown

LEVELS = 5
MaskStages = Literal["all", "last"]


@configuration
class Architecture:
    """A Cascade Mask R-CNN on a feature pyramid, in detectron2's terms; lengths in pixels of the input.

    The defaults suit frames of up to 1,000 cells; detectron2's (1,000 proposals, 100 detections) suit
    photographs. Pairs of counts are (training, inference). ``kitlib.predict`` replaces ``score_floor`` and
    ``detections`` by the values of its own configuration.
    """

    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers of the ResNet."""
    groups: Int = 1
    """Groups of a block's 3x3 convolution; 32 with group_width 8 is ResNeXt-32x8d."""
    group_width: Int = 64
    """Channels of each group."""
    stride_in_1x1: bool = True
    """Where a block strides: weights from Caffe's MSRA ResNets want the 1x1 convolution."""
    backbone: str = ""
    """A timm model in place of the ResNet."""
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"
    """Normalisation layers of the backbone; a timm model has batch norms of its own, also with GN, which is
    then of the feature pyramid alone."""
    freeze_batch_norm: bool = False
    """Batch norms of a timm model stay as loaded, whatever norm says; FrozenBN freezes them in any case."""
    freeze_at: Int = 2
    """Stages that stay as loaded: 1 the stem, 2 and res2, ...; 0 trains all."""
    fpn_channels: Int = 256
    """Channels of the feature pyramid."""
    anchor_sizes: tuple[tuple[Float, ...], ...] = ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))
    """Sides of the anchors at each level, finest first."""
    anchor_ratios: tuple[Float, ...] = (0.5, 1.0, 2.0)
    """Heights of the anchors to their widths."""
    rpn_pre_nms_topk: tuple[Int, Int] = (4000, 4000)
    """Proposals of each level before NMS."""
    rpn_post_nms_topk: tuple[Int, Int] = (2000, 3000)
    """Proposals of an image after NMS."""
    rpn_batch: Int = 256
    """Anchors of an image that the proposal network learns from."""
    rpn_nms: Float = 0.7
    """IoU above which the proposal with the lower score is dropped."""
    roi_batch: Int = 512
    """Proposals of an image that the heads learn from."""
    box_fcs: Int = 2
    """Fully connected layers of a box head."""
    box_width: Int = 1024
    """Width of these layers."""
    mask_convs: Int = 4
    """Convolutions of a mask head."""
    mask_width: Int = 256
    """Channels of these convolutions."""
    box_nms: Float = 0.6
    """IoU above which the box with the lower score is dropped. Boxes of long thin cells that lie side by side
    overlap more than the masks."""
    score_floor: Float = 0.05
    """The lowest score of a detection."""
    detections: Int = 1000
    """The most detections of an image."""
    pixel_mean: Float | tuple[Float, Float, Float] | None = None
    """Grey level that is subtracted; null: as for the backbone's published weights."""
    pixel_std: Float | tuple[Float, Float, Float] | None = None
    """What the grey levels are divided by after that; null: as for the backbone's published weights."""


#: Standard deviation of the grey levels within an image of phase contrast, a small one.
PHASE_CONTRAST_STD = 12.0

# Trains from random weights in minutes on a CPU. GroupNorm, since FrozenBN diverges on random weights.
_TINY = Architecture(
    depth=18,
    norm="GN",
    freeze_at=0,
    fpn_channels=64,
    rpn_pre_nms_topk=(500, 1000),
    rpn_post_nms_topk=(300, 1000),
    roi_batch=128,
    box_width=256,
    mask_convs=2,
    mask_width=64,
    pixel_mean=128.0,
    pixel_std=PHASE_CONTRAST_STD,
)

PRESETS: dict[str, Architecture] = {
    "tiny": _TINY,
    # The same heads on EfficientNet-Lite0, to begin with its ImageNet weights. Few crops of few images would
    # spoil the statistics of its batch norms. Photographs as these were trained on, scaled to -1 to 1, have a
    # standard deviation of one half.
    "lite0": replace(
        _TINY,
        backbone="tf_efficientnet_lite0",
        freeze_batch_norm=True,
        pixel_std=2 * PHASE_CONTRAST_STD,
    ),
    "r50": Architecture(),
    # The paper's: ResNeXt-152-32x8d, no deformable convolution, fully connected box heads.
    "x152": Architecture(depth=152, groups=32, group_width=8, stride_in_1x1=False),
}


@configuration
class ModelConfig:
    """What ``kitlib.model.build`` is given."""

    preset: str = "tiny"
    """A name in ``PRESETS``."""
    num_classes: Annotated[Int, Field(ge=1)] = 3
    """Number of cell types, background not counted."""
    mask_stages: MaskStages = "all"
    """ "all": a mask branch at each cascade stage; "last": one branch, as in detectron2."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of ``Architecture`` that differ from the preset."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture)

    @property
    def architecture(self) -> Architecture:
        """The preset with the options in place."""
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        values = dataclasses.asdict(PRESETS[self.preset]) | self.options
        return config.from_dict(Architecture, values, "model options")


def _check_architecture(a: Architecture) -> None:
    """Raise ValueError for combinations of values that the fields' types cannot rule out."""
    if len(a.anchor_sizes) != LEVELS:
        raise ValueError(
            f"model option anchor_sizes must list {LEVELS} levels of sizes, finest first, such as "
            f"[[8], [16], [32], [64], [128]], not {len(a.anchor_sizes)}"
        )
    if len({len(sizes) for sizes in a.anchor_sizes}) != 1 or not a.anchor_sizes[0]:
        raise ValueError("model option anchor_sizes must give every level equally many sizes, at least one")
    if not a.anchor_ratios:
        raise ValueError("model option anchor_ratios must not be empty")
    if a.freeze_batch_norm and not a.backbone:
        raise ValueError(
            "model option freeze_batch_norm is of timm models, named as backbone; norm FrozenBN freezes the "
            "batch norms of the ResNet"
        )
    if a.norm == "GN" and a.fpn_channels % 32:
        raise ValueError(
            f"model option fpn_channels must be a multiple of 32 with norm GN, not {a.fpn_channels}"
        )
