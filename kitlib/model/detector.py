"""detectron2's GeneralizedRCNN with a weight for each image in the loss, and its RPN with ignored areas."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from kitlib.model.matching import match
from kitlib.model.presets import ModelConfig


@META_ARCH_REGISTRY.register()
class WeightedRCNN(GeneralizedRCNN):
    """Scales every loss of an image by the image's ``weight``, which is below 1 for pseudo-labelled frames.

    Images of the same weight go through proposals and heads together; their losses are multiplied by the
    weight and by their share of the batch. A batch whose weights are all 1 takes detectron2's own path.

    Attributes:
        config: what ``kitlib.model.build`` built the model from.
    """

    config: ModelConfig

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses by name in training, else a list of {"instances": ...}; as ``GeneralizedRCNN.forward``."""
        by_weight: dict[float, list[int]] = defaultdict(list)
        for index, item in enumerate(batched_inputs):
            by_weight[float(item.get("weight", 1.0))].append(index)
        if not self.training or set(by_weight) <= {1.0}:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        targets = [item["instances"].to(self.device) for item in batched_inputs]
        total: dict[str, Tensor] = {}
        for weight, members in by_weight.items():
            share = weight * len(members) / len(batched_inputs)
            for name, loss in self._losses(images, features, targets, members).items():
                total[name] = total.get(name, 0.0) + share * loss
        return total

    def _losses(
        self, images: ImageList, features: dict[str, Tensor], targets: list[Instances], members: list[int]
    ) -> dict[str, Tensor]:
        """detectron2's losses of those images of the batch that ``members`` numbers."""
        images = ImageList(images.tensor[members], [images.image_sizes[i] for i in members])
        features = {level: x[members] for level, x in features.items()}
        targets = [targets[i] for i in members]
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        _, head_losses = self.roi_heads(images, features, proposals, targets)
        return {**head_losses, **proposal_losses}


@PROPOSAL_GENERATOR_REGISTRY.register()
class IgnoringRPN(RPN):
    """Takes no anchor in the ignored area for background; one that matches a cell stays a positive.

    Such an anchor is removed after sampling and not replaced, so that every other anchor counts as much as in
    an image without an ignored area. The anchors are matched in pieces; labels and samples are detectron2's.
    """

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (-1 ignored, 0 background, 1 cell) and boxes of all anchors of each image, as ``RPN``."""
        every = Boxes.cat(anchors)
        labels, boxes = [], []
        for cells in gt_instances:
            index, label = match(cells.gt_boxes, every, self.anchor_matcher)
            label = self._subsample_labels(label)
            if cells.has("gt_ignored"):
                label.masked_fill_((label == 0) & cells.gt_ignored.covers(every), -1)
            labels.append(label)
            boxes.append(cells.gt_boxes.tensor[index] if len(cells) else torch.zeros_like(every.tensor))
        return labels, boxes
