"""Cascade heads with a mask branch at each stage (Cai & Vasconcelos 2019, fig. 6), for detectron2.

Boxes that lie in an ignored area (``gt_ignored``, see ``kitlib.inputs.ignored``) and match no cell take no
part in training, nor do the ignored pixels of a cell's mask.

detectron2 counts boxes and pixels for its log, some 40 times a step, and waits for the GPU each time. Nobody
reads these counts, so they are not made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import fast_rcnn
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads, _ScaleGradient
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, build_mask_head
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from kitlib.model.matching import match

fast_rcnn._log_classification_stats = lambda *_, **__: None

# Boxes of an image that go through the mask heads at once; each box takes 256 x 28 x 28 numbers, 0.8 MB.
CHUNK = 256
# The same on a CPU, where what stays in its caches is quick.
CPU_CHUNK = 32


@ROI_HEADS_REGISTRY.register()
class CascadeMaskPerStage(CascadeROIHeads):
    """``CascadeROIHeads`` with a mask branch at every stage, or one if ``ROI_MASK_HEAD.STAGES`` is "last".

    Training: a stage's branch learns from that stage's positives. These are the boxes that enter the stage
    (proposals for stage 0, the boxes of the previous stage for the others) and match a cell at the stage's
    IoU. The losses ``loss_mask_stage0``, ... are summed; their gradient on the shared features is divided by
    the number of stages, as detectron2 does for boxes.

    Inference: every branch predicts masks for the final boxes, and the probabilities are averaged.

    The last stage's branch is ``mask_head``, the name of detectron2's single branch; the others are
    ``mask_head_stages``. So weights of a model with one branch fit a model with several, and vice versa.
    """

    @configurable
    def __init__(self, *, mask_head_stages: Iterable[nn.Module] = (), **kwargs: Any) -> None:
        """Args: mask_head_stages: branches of all stages but the last; none for detectron2's behaviour."""
        super().__init__(**kwargs)
        self.mask_head_stages = nn.ModuleList(mask_head_stages)
        self._entered: dict[int, list[Instances]] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of ``__init__`` that a detectron2 configuration describes."""
        arguments = super().from_config(cfg, input_shape)
        if cfg.MODEL.ROI_MASK_HEAD.STAGES == "all":
            side = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
            channels = input_shape[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].channels
            shape = ShapeSpec(channels=channels, height=side, width=side)
            others = len(arguments["box_heads"]) - 1
            arguments["mask_head_stages"] = [build_mask_head(cfg, shape) for _ in range(others)]
        return arguments

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances] | None = None
    ) -> Any:
        return super()._forward_box(_float32(features), proposals, targets)

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """As detectron2, without the boxes that ``_without_ignored`` removes."""
        return super().label_and_sample_proposals(self._without_ignored(proposals, 0, targets), targets)

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """As detectron2; with several mask branches, boxes also get the masks of the cells they match."""
        proposals = self._without_ignored(proposals, stage, targets)
        for boxes, cells in zip(proposals, targets, strict=True):
            index, label = self._match(boxes, stage, cells)
            if not len(cells):
                boxes.gt_classes = torch.full_like(index, self.num_classes)
                boxes.gt_boxes = Boxes(torch.zeros_like(boxes.proposal_boxes.tensor))
                continue
            boxes.gt_classes = cells.gt_classes[index].masked_fill_(label == 0, self.num_classes)
            boxes.gt_boxes = cells.gt_boxes[index]
            for name in ("gt_masks", "gt_ignored"):
                if self.mask_head_stages and cells.has(name):
                    boxes.set(name, cells.get(name)[index])
        if self.mask_head_stages:
            self._entered[stage] = proposals
        return proposals

    def _match(self, boxes: Instances, stage: int, cells: Instances) -> tuple[Tensor, Tensor]:
        """For each box the cell of the highest IoU, and 1 if that IoU is enough for the stage, else 0."""
        return match(cells.gt_boxes, boxes.proposal_boxes, self.proposal_matchers[stage])

    def _without_ignored(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """The boxes that match a cell or lie outside the ignored area."""
        used = []
        for boxes, cells in zip(proposals, targets, strict=True):
            if cells.has("gt_ignored"):
                outside = ~cells.gt_ignored.covers(boxes.proposal_boxes)
                boxes = boxes[outside | (self._match(boxes, stage, cells)[1] == 1)]
            used.append(boxes)
        return used

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        features = _float32(features)
        if not self.mask_head_stages:
            return super()._forward_mask(features, instances)
        levels = [features[name] for name in self.mask_in_features]
        if not self.training:
            return self._average_masks(levels, instances)
        entered, self._entered = {0: instances, **self._entered}, {}
        losses = {}
        for stage, head in enumerate(self._mask_heads()):
            positives, _ = select_foreground_proposals(entered[stage], self.num_classes)
            pooled = self.mask_pooler(levels, [p.proposal_boxes for p in positives])
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
            losses[f"loss_mask_stage{stage}"] = head(pooled, positives)["loss_mask"]
        return losses

    def _average_masks(self, levels: list[Tensor], instances: list[Instances]) -> list[Instances]:
        """Set ``pred_masks`` (N, 1, 28, 28): the predicted class's probabilities, the branches' mean."""
        heads = self._mask_heads()
        masks: list[list[Tensor]] = [[] for _ in instances]
        chunk = CPU_CHUNK if levels[0].device.type == "cpu" else CHUNK
        for start in range(0, max(1, *map(len, instances)), chunk):
            part = [boxes[start : start + chunk] for boxes in instances]
            pooled = self.mask_pooler(levels, [boxes.pred_boxes for boxes in part])
            by_head = [[boxes.pred_masks for boxes in head(pooled, part)] for head in heads]
            for image, probabilities in enumerate(zip(*by_head, strict=True)):
                masks[image].append(torch.stack(probabilities).mean(0))
        for boxes, chunks in zip(instances, masks, strict=True):
            boxes.pred_masks = torch.cat(chunks)
        return instances

    def _mask_heads(self) -> list[nn.Module]:
        """The branches in the order of their stages."""
        return [*self.mask_head_stages, self.mask_head]


@ROI_MASK_HEAD_REGISTRY.register()
class IgnoringMaskHead(MaskRCNNConvUpsampleHead):
    """A mask branch whose loss leaves out the ignored pixels, and which is quick on a CPU."""

    def layers(self, x: Tensor) -> Tensor:
        """Logits (N, classes, 2 S, 2 S) from pooled features (N, C, S, S); as ``MaskRCNNConvUpsampleHead``.

        Where a CPU predicts, the last layers are two products of matrices in place of a transposed
        convolution and one of 1 x 1, which move the same numbers through memory several times.
        """
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.jit.is_tracing():
            return super().layers(x)
        for layer in self.conv_norm_relus:
            x = layer(x)
        number, channels, side, _ = x.shape
        up, last = self.deconv, self.predictor
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        # Each pixel becomes 2 x 2 pixels.
        weight = up.weight.permute(0, 2, 3, 1).reshape(channels, -1)
        wide = torch.addmm(up.bias.repeat(4), pixels, weight).relu_().view(-1, up.out_channels)
        logits = torch.addmm(last.bias, wide, last.weight.flatten(1).t())
        spread = logits.view(number, side, side, 2, 2, last.out_channels).permute(0, 5, 1, 3, 2, 4)
        return spread.reshape(number, last.out_channels, 2 * side, 2 * side)

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """The loss in training, else the instances with ``pred_masks``; as ``MaskRCNNConvUpsampleHead``."""
        if not self.training:
            return super().forward(x, instances)
        logits = self.layers(x)
        if not len(logits):
            return {"loss_mask": logits.sum() * 0}
        side = logits.shape[-1]
        masks: list[Tensor] = []
        weights: list[Tensor] = []
        for cells in filter(len, instances):
            boxes = cells.proposal_boxes.tensor
            masks.append(cells.gt_masks.crop_and_resize(boxes, side))
            weights.append(torch.ones_like(masks[-1]))
            if cells.has("gt_ignored"):
                weights[-1] = ~cells.gt_ignored.covers_bins(boxes, side)
        classes = torch.cat([cells.gt_classes for cells in instances])
        logits = logits[torch.arange(len(logits), device=logits.device), classes]
        # The mean is over all pixels, so that a pixel counts as much as in an image without an ignored area.
        loss = F.binary_cross_entropy_with_logits(
            logits, torch.cat(masks).to(logits), torch.cat(weights).to(logits)
        )
        return {"loss_mask": loss * self.loss_weight}


def _float32(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features in float32, since detectron2's pooling rounds the boxes to the features' type.

    In bfloat16 that moves a box at x = 700 by up to 2 pixels.
    """
    return {level: x.float() for level, x in features.items()}
