"""An ensemble that agrees before it decides: every model's heads judge all models' proposals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms

from kitlib.predict import network


def look(models: Sequence[nn.Module], images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
    """The raw instances, as ``network.look`` gives them, of one or many cascade models together.

    For each proposal the models' class scores and refined boxes are averaged, before NMS; on the boxes that
    are left, their mask probabilities. One model alone finds what it finds by itself.
    """
    seen = [_features_and_proposals(model, images) for model in models]
    proposals = pool([found for _, found in seen], models[0].proposal_generator.nms_thresh)
    refined = [
        refine(model.roi_heads, features, proposals)
        for model, (features, _) in zip(models, seen, strict=True)
    ]
    boxes, scores = map(_means, zip(*refined, strict=True))
    limits = models[0].roi_heads.box_predictor[-1]
    instances, _ = fast_rcnn_inference(
        boxes,
        scores,
        [p.image_size for p in proposals],
        limits.test_score_thresh,
        limits.test_nms_thresh,
        limits.test_topk_per_image,
    )
    masks = []
    for model, (features, _) in zip(models, seen, strict=True):
        masked = model.roi_heads.forward_with_given_boxes(features, instances)
        masks.append([found.pred_masks for found in masked])
    for found, mean in zip(instances, _means(masks), strict=True):
        found.pred_masks = mean
    return instances


def pool(found: Sequence[list[Instances]], iou: float) -> list[Instances]:
    """All models' proposals in each image, each place once: after NMS.

    However many they are: objectness is not comparable between models, and within a common limit one model's
    could crowd out all others'.
    """
    if len(found) == 1:
        return found[0]
    pooled = []
    for proposals in zip(*found, strict=True):
        together = Instances.cat(list(proposals))
        boxes, logits = together.proposal_boxes.tensor, together.objectness_logits
        pooled.append(together[nms(boxes, logits, iou)])
    return pooled


def refine(
    heads: CascadeROIHeads, features: dict[str, Tensor], proposals: list[Instances]
) -> tuple[list[Tensor], list[Tensor]]:
    """The boxes (R, 4) and class scores (R, K + 1) of each image's proposals: ``CascadeROIHeads``'s own
    inference up to its NMS, the last stage's boxes and the mean of all stages' scores."""
    levels = [features[name] for name in heads.box_in_features]
    sizes = [p.image_size for p in proposals]
    boxes, scores = [], []
    for stage in range(heads.num_cascade_stages):
        if stage:
            proposals = heads._create_proposals_from_boxes(boxes, sizes)
        predictions = heads._run_stage(levels, proposals, stage)
        boxes = heads.box_predictor[stage].predict_boxes(predictions, proposals)
        scores.append(heads.box_predictor[stage].predict_probs(predictions, proposals))
    return list(boxes), _means(scores)


def _means(of: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """For each image the mean over what is given for each stage or model."""
    return [torch.stack(each).mean(0) for each in zip(*of, strict=True)]


def _features_and_proposals(
    model: nn.Module, images: Sequence[NDArray[np.uint8]]
) -> tuple[dict[str, Tensor], list[Instances]]:
    batch = model.preprocess_image([network.to_input(image) for image in images])
    features = model.backbone(batch.tensor)
    proposals, _ = model.proposal_generator(batch, features, None)
    return {level: x.float() for level, x in features.items()}, proposals
