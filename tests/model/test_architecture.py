"""Presets and options as models: parameters counted by hand, levels, anchors, norms, the full X-152 once."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import Any

import pytest
import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.model import build
from kitlib.model.architecture import report_layers, to_cfg
from kitlib.model.detector import WeightedRCNN
from kitlib.model.presets import ModelConfig
from kitlib.runtime import heartbeat

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LOSSES = {
    "loss_rpn_cls",
    "loss_rpn_loc",
    *(f"loss_{kind}_stage{stage}" for kind in ("cls", "box_reg", "mask") for stage in range(3)),
}


def shapes(preset: str, num_classes: int = 3, mask_stages: str = "all", **options: Any) -> nn.Module:
    """A model without storage: for counting and looking."""
    with torch.device("meta"):
        return WeightedRCNN(to_cfg(ModelConfig(preset, num_classes, mask_stages, options)))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def resnext(depth: int, groups: int, width: int) -> int:
    """Convolutions of a bottleneck ResNe(X)t, from the papers; its frozen norms have no parameters."""
    total, channels = 3 * 64 * 49, 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        middle, out = groups * width * 2**stage, 256 * 2**stage
        total += channels * out  # the first block's shortcut
        for _ in range(blocks):
            total += channels * middle + middle * (middle // groups) * 9 + middle * out
            channels = out
    return total


def conv(inputs: int, outputs: int, side: int) -> int:
    return inputs * outputs * side**2 + outputs


@pytest.mark.parametrize(("preset", "depth", "groups", "width"), [("r50", 50, 1, 64), ("x152", 152, 32, 8)])
@pytest.mark.parametrize(("mask_stages", "branches"), [("all", 3), ("last", 1)])
def test_parameters_are_those_counted_by_hand(
    preset: str, depth: int, groups: int, width: int, mask_stages: str, branches: int
) -> None:
    pyramid = sum(conv(c, 256, 1) + conv(256, 256, 3) for c in (256, 512, 1024, 2048))
    proposals = conv(256, 256, 3) + conv(256, 3, 1) + conv(256, 12, 1)
    box = (256 * 7 * 7 + 1) * 1024 + 1025 * 1024 + 1025 * (3 + 1) + 1025 * 4
    mask = 4 * conv(256, 256, 3) + conv(256, 256, 2) + conv(256, 3, 1)
    expected = resnext(depth, groups, width) + pyramid + proposals + 3 * box + branches * mask
    assert size(shapes(preset, mask_stages=mask_stages)) == expected


def test_lite0_has_the_parameters_counted_by_hand() -> None:
    """EfficientNet-Lite0: Tan and Le 2019, table 1, without squeeze and excitation, frozen norms."""
    body, inputs = 3 * 32 * 9, 32
    table = [(1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3), (6, 112, 3, 5), (6, 192, 4, 5)]
    for expansion, channels, blocks, side in [*table, (6, 320, 1, 3)]:
        for _ in range(blocks):
            middle = expansion * inputs
            body += (inputs * middle if expansion > 1 else 0) + middle * side**2 + middle * channels
            inputs = channels
    # Group norm has a scale and a shift a channel, and its convolutions no bias.
    pyramid = sum(c * 64 + 128 + 64 * 64 * 9 + 128 for c in (24, 40, 112, 320))
    proposals = conv(64, 64, 3) + conv(64, 3, 1) + conv(64, 12, 1)
    box = (64 * 7 * 7 + 1) * 256 + 257 * 256 + 257 * (3 + 1) + 257 * 4
    mask = 2 * conv(64, 64, 3) + conv(64, 64, 2) + conv(64, 3, 1)
    assert size(build("lite0")) == body + pyramid + proposals + 3 * (box + mask) == 6_021_776


def test_the_papers_model_has_its_175_million_parameters() -> None:
    assert size(shapes("x152")) == pytest.approx(175e6, rel=0.01)


def test_there_is_no_deformable_convolution_and_the_box_heads_are_fully_connected() -> None:
    model = shapes("x152")
    assert not any("Deform" in type(m).__name__ for m in model.modules())
    assert all(
        {type(m) for m in head.children()} <= {nn.Flatten, nn.Linear, nn.ReLU}
        for head in model.roi_heads.box_head
    )
    assert [m.thresholds[1] for m in model.roi_heads.proposal_matchers] == [0.5, 0.6, 0.7]


def test_levels_have_their_strides() -> None:
    model, strides = build("tiny").eval(), [4, 8, 16, 32, 64]
    levels = model.backbone.output_shape()
    assert [s.stride for s in levels.values()] == strides
    features = model.backbone(torch.zeros(1, 3, 64, 128))
    assert [tuple(f.shape) for f in features.values()] == [(1, 64, 64 // s, 128 // s) for s in strides]
    assert model.proposal_generator.anchor_generator.strides == strides
    pooled = [1 / p.spatial_scale for p in model.roi_heads.box_pooler.level_poolers]
    assert pooled == strides[:4]
    assert pooled == [1 / p.spatial_scale for p in model.roi_heads.mask_pooler.level_poolers]


def test_anchors_have_the_sizes_and_ratios_asked_for() -> None:
    sizes, ratios = [[9], [17], [31], [63], [127]], [0.2, 0.5, 1, 2, 5]
    model = build("tiny", anchor_sizes=sizes, anchor_ratios=ratios)
    for [anchor], cells in zip(sizes, model.proposal_generator.anchor_generator.cell_anchors, strict=True):
        wanted = [(anchor / sqrt(r), anchor * sqrt(r)) for r in ratios]  # a ratio is height / width
        x0, y0, x1, y1 = cells.unbind(1)
        torch.testing.assert_close(torch.stack([x1 - x0, y1 - y0], 1), torch.tensor(wanted))
        torch.testing.assert_close(x0, -x1)
        torch.testing.assert_close(y0, -y1)


def test_counts_reach_the_proposals_and_the_heads() -> None:
    model = shapes(
        "r50", rpn_pre_nms_topk=[5, 6], rpn_post_nms_topk=[7, 8], roi_batch=9, rpn_batch=10, detections=11
    )
    rpn, heads = model.proposal_generator, model.roi_heads
    assert (rpn.pre_nms_topk, rpn.post_nms_topk) == ({True: 5, False: 6}, {True: 7, False: 8})
    assert (heads.batch_size_per_image, rpn.batch_size_per_image) == (9, 10)
    assert heads.box_predictor[2].test_topk_per_image == 11


@pytest.mark.parametrize(
    ("norm", "backbone", "pyramid"),
    [
        ("FrozenBN", "FrozenBatchNorm2d", "NoneType"),
        ("BN", "BatchNorm2d", "BatchNorm2d"),
        ("SyncBN", "SyncBatchNorm", "SyncBatchNorm"),
        ("GN", "GroupNorm", "GroupNorm"),
    ],
)
def test_norms(norm: str, backbone: str, pyramid: str) -> None:
    model = shapes("r50", norm=norm, freeze_at=0)
    assert type(model.backbone.bottom_up.res5[2].conv3.norm).__name__ == backbone
    assert type(model.backbone.fpn_lateral3.norm).__name__ == pyramid


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, []), (1, ["stem"]), (3, ["stem", "res2", "res3"])])
def test_stages_are_frozen_from_the_first(freeze_at: int, frozen: list[str]) -> None:
    body = shapes("r50", freeze_at=freeze_at).backbone.bottom_up
    kept = [n for n, m in body.named_children() if not any(p.requires_grad for p in m.parameters())]
    assert kept == frozen


def test_pixels_are_scaled_as_said() -> None:
    model = build("tiny", pixel_mean=100, pixel_std=[1, 2, 4])
    image = torch.full((3, 32, 32), 104.0)
    scaled = model.preprocess_image([{"image": image}]).tensor
    assert scaled[0, :, 0, 0].tolist() == [4.0, 2.0, 1.0]
    assert build("tiny").pixel_std.flatten().tolist() == [12.0] * 3


def test_integer_images_are_taken_too() -> None:
    image = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    assert build("tiny").preprocess_image([{"image": image}]).tensor.abs().max() == 0


def test_a_model_remembers_what_it_was_built_from() -> None:
    assert build("tiny", 1, "last", detections=5).config == ModelConfig("tiny", 1, "last", {"detections": 5})


def test_the_same_seed_builds_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build("tiny").state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(KitError, match="did you mean 'freeze_at'"):
        build("r50", freezeat=0)


@pytest.mark.parametrize("cells", [0, 1, 60])
def test_losses_are_finite_with_any_number_of_cells(cells: int, item: Callable, storage: Any) -> None:
    torch.manual_seed(0)
    model = build("tiny")
    losses = model([item(cells, seed=1), item(0, seed=2)])
    assert set(losses) == LOSSES
    sum(losses.values()).backward()
    assert all(isfinite(loss.item()) for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_detections_are_in_the_frame_and_carry_probabilities(item: Callable) -> None:
    torch.manual_seed(0)
    model = build("tiny", score_floor=0.0, detections=40).eval()
    with torch.no_grad():
        [found] = model.inference([item(3)], do_postprocess=False)
    assert len(found) == 40
    assert found.pred_masks.shape == (40, 1, 28, 28)
    assert 0 <= found.pred_masks.min() <= found.pred_masks.max() <= 1
    assert found.pred_boxes.tensor.min() >= 0
    assert found.pred_boxes.tensor.max() <= 64
    assert set(found.pred_classes.tolist()) <= {0, 1, 2}


def test_each_layer_is_a_step_of_progress() -> None:
    """Forward: the two layers with weights. Backward: their four gradients."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    report_layers(model)
    before = heartbeat._progress.steps
    loss = model(torch.ones(1, 2)).sum()
    assert heartbeat._progress.steps == before + 2
    loss.backward()
    assert heartbeat._progress.steps == before + 6


def test_a_model_reports_its_layers() -> None:
    backbone = build("tiny").backbone
    layers = [m for m in backbone.modules() if next(m.parameters(recurse=False), None) is not None]
    before = heartbeat._progress.steps
    backbone(torch.zeros(1, 3, 64, 64))
    assert heartbeat._progress.steps == before + len(layers)
