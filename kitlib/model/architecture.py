"""From a model configuration to detectron2's configuration, and from that to a model."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from kitlib.model import detector, heads, roi_align  # registers their parts
from kitlib.model.presets import LEVELS, Architecture, ModelConfig
from kitlib.runtime import heartbeat

_STAGES = ("res2", "res3", "res4", "res5")


def build_model(config: ModelConfig) -> detector.WeightedRCNN:
    """A model with random weights, on the CPU, in training mode; see ``kitlib.model.build``."""
    model = detector.WeightedRCNN(to_cfg(config))
    roi_align.replace_poolers(model)
    report_layers(model)
    model.config = config
    return model.train()


def report_layers(model: nn.Module) -> None:
    """Count each layer as a step of progress: its forward pass when it begins, its gradient when it is done.

    A large model may need a quarter of an hour for an iteration on a CPU, and looks like a hang unless each
    layer reports that it runs.
    """
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_: heartbeat.beat())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _: heartbeat.beat())


def to_cfg(config: ModelConfig) -> CfgNode:
    """The detectron2 configuration of a model; its data and solver sections have detectron2's defaults."""
    cfg, a = get_cfg(), config.architecture
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = detector.WeightedRCNN.__name__
    cfg.MODEL.MASK_ON = True
    mean, std = _published_pixels(a.backbone)
    cfg.MODEL.PIXEL_MEAN = _per_channel(mean if a.pixel_mean is None else a.pixel_mean)
    cfg.MODEL.PIXEL_STD = _per_channel(std if a.pixel_std is None else a.pixel_std)
    _set_backbone(cfg, a)
    _set_proposals(cfg, a)
    _set_heads(cfg, a)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = config.num_classes
    cfg.MODEL.ROI_MASK_HEAD.STAGES = config.mask_stages
    return cfg


def _set_backbone(cfg: CfgNode, a: Architecture) -> None:
    cfg.MODEL.BACKBONE.NAME = build_cell_fpn_backbone.__name__
    cfg.MODEL.BACKBONE.FREEZE_AT = a.freeze_at
    cfg.MODEL.BACKBONE.TIMM = a.backbone
    cfg.MODEL.BACKBONE.TIMM_NORM = "FrozenBN" if a.freeze_batch_norm else a.norm
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.NORM, resnet.STRIDE_IN_1X1 = a.depth, a.norm, a.stride_in_1x1
    resnet.NUM_GROUPS, resnet.WIDTH_PER_GROUP = a.groups, a.group_width
    resnet.RES2_OUT_CHANNELS = 64 if a.depth < 50 else 256
    resnet.OUT_FEATURES = list(_STAGES)
    cfg.MODEL.FPN.IN_FEATURES = list(_STAGES)
    cfg.MODEL.FPN.OUT_CHANNELS = a.fpn_channels
    # As in detectron2's model zoo: published weights have no FPN statistics that could be frozen.
    cfg.MODEL.FPN.NORM = "" if a.norm == "FrozenBN" else a.norm


def _set_proposals(cfg: CfgNode, a: Architecture) -> None:
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(sizes) for sizes in a.anchor_sizes]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(a.anchor_ratios)]
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = detector.IgnoringRPN.__name__
    proposals = cfg.MODEL.RPN
    proposals.IN_FEATURES = [f"p{level}" for level in range(2, 2 + LEVELS)]
    proposals.PRE_NMS_TOPK_TRAIN, proposals.PRE_NMS_TOPK_TEST = a.rpn_pre_nms_topk
    proposals.POST_NMS_TOPK_TRAIN, proposals.POST_NMS_TOPK_TEST = a.rpn_post_nms_topk
    proposals.BATCH_SIZE_PER_IMAGE, proposals.NMS_THRESH = a.rpn_batch, a.rpn_nms


def _set_heads(cfg: CfgNode, a: Architecture) -> None:
    roi, box, mask = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    roi.NAME = heads.CascadeMaskPerStage.__name__
    roi.IN_FEATURES = cfg.MODEL.RPN.IN_FEATURES[:-1]
    roi.BATCH_SIZE_PER_IMAGE = a.roi_batch
    roi.SCORE_THRESH_TEST, roi.NMS_THRESH_TEST = a.score_floor, a.box_nms
    cfg.TEST.DETECTIONS_PER_IMAGE = a.detections
    box.NAME, box.POOLER_RESOLUTION = "FastRCNNConvFCHead", 7
    box.NUM_FC, box.FC_DIM, box.CLS_AGNOSTIC_BBOX_REG = a.box_fcs, a.box_width, True
    mask.NAME, mask.POOLER_RESOLUTION = heads.IgnoringMaskHead.__name__, 14
    mask.NUM_CONV, mask.CONV_DIM = a.mask_convs, a.mask_width


def _published_pixels(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, per channel in grey levels, that a backbone's ImageNet weights were trained with.

    detectron2's ResNets have those of Caffe: BGR, with the std folded into the first convolution.
    """
    if not backbone:
        return (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)
    from kitlib.model.timm_backbone import published_pixels

    return published_pixels(backbone)


def _per_channel(value: float | tuple[float, ...]) -> list[float]:
    return [value] * 3 if isinstance(value, float) else list(value)


@BACKBONE_REGISTRY.register()
def build_cell_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid on a ResNet or a timm model."""
    if cfg.MODEL.BACKBONE.TIMM:
        from kitlib.model.timm_backbone import TimmBackbone

        body = cfg.MODEL.BACKBONE
        bottom_up = TimmBackbone(body.TIMM, body.TIMM_NORM, body.FREEZE_AT)
    else:
        bottom_up = build_resnet_backbone(cfg, input_shape)
    top = LastLevelMaxPool()
    top.in_feature = cfg.MODEL.RPN.IN_FEATURES[-2]
    fpn = cfg.MODEL.FPN
    return FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, norm=fpn.NORM, top_block=top)
