"""detectron2's region proposal network, which is told where an image's cells are not known."""

from __future__ import annotations

import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor


@PROPOSAL_GENERATOR_REGISTRY.register()
class IgnoringRPN(RPN):
    """An anchor that matches no cell and lies in the ignored area is no background.

    It is taken out after sampling and not replaced, so that every other anchor counts as much as in an image
    that is known everywhere. An image without ``gt_ignored`` takes detectron2's own path.
    """

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (-1 ignored, 0 background, 1 cell) and boxes of all anchors of each image, as ``RPN``."""
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        for label, cells in zip(labels, gt_instances, strict=True):
            if cells.has("gt_ignored"):
                label[(label == 0) & cells.gt_ignored.holds(Boxes.cat(anchors))] = -1
        return labels, boxes
