"""The mask branch of each stage: what it learns from and says, and that one branch is detectron2's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from kitlib.inputs.mask_targets import LocalMasks
from kitlib.model import build, heads, roi_align
from kitlib.model.architecture import to_cfg
from kitlib.model.presets import ModelConfig


def stock(config: ModelConfig) -> nn.Module:
    """detectron2's own classes from the same configuration."""
    cfg = to_cfg(config)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    return META_ARCH_REGISTRY.get("GeneralizedRCNN")(cfg)


def pairwise_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes matched one to one, by hand."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared)


def features(channels: int = 64, size: int = 64) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return {
        f"p{level}": torch.randn(1, channels, size >> level, size >> level, requires_grad=True)
        for level in (2, 3, 4, 5)
    }


def detections(boxes: list[list[float]], classes: list[int]) -> Instances:
    found = Instances((64, 64))
    found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return found


BOXES = [[4.0, 4, 20, 18], [30, 10, 44, 40], [2, 30, 60, 62], [50, 50, 60, 60.5]]


# ------------------------------------------------------------------------------------------------ "last"


@pytest.mark.parametrize("cells", [0, 12])
def test_one_branch_trains_as_detectron2s_own_bit_for_bit(cells: int, item: Callable, storage: Any) -> None:
    ours = build("tiny", mask_stages="last")
    theirs, same = stock(ours.config), stock(ours.config)
    roi_align.replace_poolers(same)  # its gradient adds up in another order, which has tests of its own
    losses = []
    for model in (ours, theirs, same):
        model.load_state_dict(ours.state_dict())  # strict: the same names
        torch.manual_seed(1)
        losses.append(model([item(cells, seed=3), item(5, seed=4)]))
        sum(losses[-1].values()).backward()
    assert losses[0] == losses[1] == losses[2]
    triples = zip(ours.named_parameters(), theirs.parameters(), same.parameters(), strict=True)
    for (name, a), b, c in triples:
        assert torch.equal(a.grad, c.grad), name
        assert (a.grad - b.grad).norm() <= 1e-4 * b.grad.norm(), name


def test_one_branch_infers_as_detectron2s_own(item: Callable) -> None:
    ours = build("tiny", mask_stages="last", score_floor=0.0, detections=300).eval()
    theirs = stock(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        [a], [b] = (m.inference([item(5)], do_postprocess=False) for m in (ours, theirs))
    assert len(a) == 300
    for field in ("scores", "pred_classes"):
        assert torch.equal(a.get(field), b.get(field))
    # Other products of matrices, and so other rounding.
    torch.testing.assert_close(a.pred_masks, b.pred_masks, rtol=0, atol=1e-6)
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


# ------------------------------------------------------------------------------------------------ training


def positives_of(model: nn.Module, batch: list[dict[str, Any]]) -> list[Instances]:
    """The positives of the first image that each stage's branch is given in training."""
    given = []
    branches = [*model.roi_heads.mask_head_stages, model.roi_heads.mask_head]
    hooks = [b.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1][0])) for b in branches]
    model(batch)
    for hook in hooks:
        hook.remove()
    return given


def test_a_branch_learns_from_its_own_stages_positives(item: Callable, storage: Any) -> None:
    torch.manual_seed(0)
    model = build("tiny", roi_batch=512)
    batch = [item(15, seed=2)]
    entered = []
    model.roi_heads.box_pooler.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[1][0]))
    given = positives_of(model, batch)
    assert len(given) == len(entered) == 3
    truth = batch[0]["instances"].gt_boxes
    for stage, (positives, boxes, threshold) in enumerate(zip(given, entered, (0.5, 0.6, 0.7), strict=True)):
        reached = torch.stack(
            [pairwise_overlap(boxes.tensor, truth.tensor[i].expand(len(boxes), 4)) for i in range(len(truth))]
        )
        # Every box that entered the stage and overlaps a cell enough is there, in its order, and none other.
        wanted = boxes.tensor[reached.max(0).values >= threshold]
        assert len(wanted) > 0, stage
        assert torch.equal(positives.proposal_boxes.tensor, wanted)
        assert (pairwise_overlap(wanted, positives.gt_boxes.tensor) >= threshold).all()
        # Its mask is that of the cell whose box it is.
        assert torch.equal(positives.gt_masks.get_bounding_boxes().tensor, positives.gt_boxes.tensor)
    assert not torch.equal(given[0].proposal_boxes.tensor, given[2].proposal_boxes.tensor)


@pytest.mark.parametrize("cells", [(0,), (0, 0), (0, 9), (9, 0)])
def test_images_without_cells_add_nothing_to_the_masks(
    cells: tuple[int, ...], item: Callable, storage: Any
) -> None:
    torch.manual_seed(0)
    model = build("tiny")
    losses = model([item(n, seed=i) for i, n in enumerate(cells)])
    masks = [losses[f"loss_mask_stage{stage}"].item() for stage in range(3)]
    if any(cells):
        assert all(0.5 < loss < 0.9 for loss in masks)  # log 2 at random weights
    else:
        assert masks == [0.0, 0.0, 0.0]


def test_local_masks_train_as_bitmasks_do(item: Callable, storage: Any) -> None:
    torch.manual_seed(0)
    model, batch = build("tiny"), [item(12)]
    local = [{**batch[0], "instances": Instances((64, 64), **batch[0]["instances"].get_fields())}]
    stack = batch[0]["instances"].gt_masks.tensor.numpy()
    local[0]["instances"].gt_masks = LocalMasks.from_crops([(0, 0, mask) for mask in stack], (64, 64))
    losses = []
    for inputs in (batch, local):
        torch.manual_seed(1)
        losses.append(model(inputs))
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name], atol=1e-3, rtol=1e-3, msg=name)


def test_shared_features_feel_the_mean_of_the_stages(monkeypatch: pytest.MonkeyPatch, storage: Any) -> None:
    roi_heads = build("tiny").roi_heads
    positives = detections(BOXES, [0, 1, 2, 0])
    sample = Instances((64, 64), proposal_boxes=positives.pred_boxes, gt_classes=positives.pred_classes)
    sample.gt_masks = LocalMasks.from_crops([(0, 0, torch.ones(64, 64).numpy())] * 4, (64, 64))
    gradients = []
    for scaled in (True, False):
        if not scaled:
            monkeypatch.setattr(heads._ScaleGradient, "apply", lambda x, _: x)
        levels = features()
        roi_heads._entered = {1: [sample], 2: [sample]}
        losses = roi_heads._forward_mask(levels, [sample])
        roi_heads.zero_grad()
        sum(losses.values()).backward()
        gradients.append((levels["p2"].grad, roi_heads.mask_head.predictor.weight.grad.clone()))
    torch.testing.assert_close(gradients[0][0] * 3, gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


# ------------------------------------------------------------------------------------------------ inference


def test_masks_are_the_mean_of_what_each_branch_says() -> None:
    model = build("tiny").eval()
    alone = build("tiny", mask_stages="last").eval()
    branches = [*model.roi_heads.mask_head_stages, model.roi_heads.mask_head]
    for branch in branches:  # far from a half, so that a mean of logits would differ
        nn.init.normal_(branch.predictor.weight, std=0.5)
    levels, masks = features(), []
    with torch.no_grad():
        for branch in branches:
            alone.roi_heads.mask_head.load_state_dict(branch.state_dict())
            [found] = alone.roi_heads.forward_with_given_boxes(levels, [detections(BOXES, [0, 1, 2, 0])])
            masks.append(found.pred_masks)
        [found] = model.roi_heads.forward_with_given_boxes(levels, [detections(BOXES, [0, 1, 2, 0])])
    assert found.pred_masks.shape == (4, 1, 28, 28)
    torch.testing.assert_close(found.pred_masks, sum(masks) / 3)


def test_many_boxes_go_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model, levels = build("tiny").eval(), {n: f.expand(2, -1, -1, -1) for n, f in features().items()}
    boxes = [[float(x), float(y), x + 9.0, y + 11.0] for x in range(0, 50, 7) for y in range(0, 50, 9)]
    results = []
    for chunk in (heads.CPU_CHUNK, 5):
        monkeypatch.setattr(heads, "CPU_CHUNK", chunk)
        images = [detections(boxes, [i % 3 for i in range(len(boxes))]), detections(BOXES, [2, 2, 1, 1])]
        with torch.no_grad():
            found = model.roi_heads.forward_with_given_boxes(levels, images)
        assert [len(f.pred_masks) for f in found] == [len(boxes), 4]
        results.append(torch.cat([f.pred_masks for f in found]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("mask_stages", ["all", "last"])
def test_mixed_precision_does_not_round_the_boxes(mask_stages: str) -> None:
    """In bfloat16 these two boxes would be one: 801.3 and 803.1 are both 800 or 804."""
    model, size = build("tiny", mask_stages=mask_stages).eval(), 1024
    nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.5)
    ramp = torch.arange(size / 4).div(size / 4).expand(1, 64, size // 4, size // 4).bfloat16()
    levels = {f"p{k}": ramp[..., :: 2 ** (k - 2), :: 2 ** (k - 2)] for k in (2, 3, 4, 5)}
    found = detections([[801.3, 803.1, 821.7, 825.9], [803.1, 801.3, 821.7, 825.9]], [0, 0])
    found = Instances((size, size), **found.get_fields())
    pooled = []
    model.roi_heads.mask_head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.roi_heads.forward_with_given_boxes(levels, [found])
    [features] = pooled
    # On a ramp of x the mean over the box is its centre: 811.5 and 812.4, pixel centres half a cell before.
    centres = features.float().mean((1, 2, 3)) * size
    torch.testing.assert_close(centres, torch.tensor([811.5 - 2, 812.4 - 2]), atol=0.2, rtol=0)


def test_no_boxes_have_no_masks() -> None:
    model = build("tiny").eval()
    with torch.no_grad():
        [found] = model.roi_heads.forward_with_given_boxes(features(), [detections([], [])])
    assert found.pred_masks.shape == (0, 1, 28, 28)
