"""Names that belong together, and one class made several."""

from __future__ import annotations

import pytest
import torch

from kitlib.model.weights import match, replicate


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("roi_heads.mask_head.deconv.weight", "roi_heads.mask_head.deconv.weight"),
        ("roi_heads.mask_head_stages.1.deconv.weight", "roi_heads.mask_head.deconv.weight"),  # one mask head
        ("roi_heads.box_head.2.fc1.bias", "roi_heads.box_head.fc1.bias"),  # one box head: no cascade
        ("backbone.bottom_up.res2.0.conv1.weight", "res2.0.conv1.weight"),  # a backbone alone
        ("backbone.fpn_lateral2.weight", "fpn_lateral2.weight"),  # a Caffe2 detector
        ("backbone.bottom_up.stem.conv1.weight", "conv1.weight"),  # torchvision's ResNet from here
        ("backbone.bottom_up.stem.conv1.norm.running_var", "bn1.running_var"),
        ("backbone.bottom_up.res4.22.conv3.norm.bias", "layer3.22.bn3.bias"),
        ("backbone.bottom_up.res5.0.shortcut.weight", "layer4.0.downsample.0.weight"),
        ("backbone.bottom_up.res5.0.shortcut.norm.weight", "layer4.0.downsample.1.weight"),
        (
            "backbone.bottom_up.body.stages_0.blocks.1.conv_dw.weight",
            "stages.0.blocks.1.conv_dw.weight",
        ),  # timm
    ],
)
def test_names_that_belong_together(ours: str, theirs: str) -> None:
    assert match([ours], [theirs, "something.else"]) == {ours: theirs}


def test_the_own_name_goes_before_a_single_heads() -> None:
    names = ["roi_heads.mask_head_stages.0.deconv.bias", "roi_heads.mask_head.deconv.bias"]
    assert match(names, names) == {name: name for name in names}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("roi_heads.mask_head_stages.0.deconv.bias", "roi_heads.mask_head_stages.1.deconv.bias"),
        ("backbone.bottom_up.res2.0.conv1.weight", "conv1.weight"),
        ("roi_heads.box_head.0.fc1.weight", "fc1.weight"),
    ],
)
def test_names_that_do_not(ours: str, theirs: str) -> None:
    assert match([ours], [theirs]) == {}


@pytest.mark.parametrize("classes", [1, 2, 3, 8])
def test_classes_share_the_probability_of_the_one(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 16, generator=generator), torch.randn(2, generator=generator)
    features = torch.randn(50, 16, generator=generator)
    grown = {
        kind: replicate(f"x.cls_score.{kind}", tensor, torch.empty(classes + 1, *tensor.shape[1:]))
        for kind, tensor in (("weight", weight), ("bias", bias))
    }
    one = (features @ weight.T + bias).softmax(1)
    several = (features @ grown["weight"].T + grown["bias"]).softmax(1)
    torch.testing.assert_close(several[:, -1], one[:, -1])  # the background, last in both
    torch.testing.assert_close(several[:, :-1], one[:, :1].expand(-1, classes) / classes)


def test_boxes_and_masks_of_the_one_class_are_repeated() -> None:
    boxes, masks = torch.randn(4, 8), torch.randn(1, 8, 1, 1)
    assert torch.equal(replicate("x.bbox_pred.weight", boxes, torch.empty(12, 8)), boxes.repeat(3, 1))
    assert torch.equal(
        replicate("x.predictor.weight", masks, torch.empty(3, 8, 1, 1)), masks.repeat(3, 1, 1, 1)
    )


@pytest.mark.parametrize(
    ("name", "file", "here"),
    [
        ("x.cls_score.weight", (81, 8), (4, 8)),  # many classes: which one to repeat is unknown
        ("x.cls_score.weight", (2, 8), (4, 9)),
        ("x.predictor.bias", (3,), (8,)),
        ("x.bbox_pred.weight", (4, 8), (6, 8)),
        ("x.fc1.weight", (1, 8), (3, 8)),
        ("x.anchor_deltas.bias", (12,), (24,)),
    ],
)
def test_nothing_else_is_repeated(name: str, file: tuple[int, ...], here: tuple[int, ...]) -> None:
    assert replicate(name, torch.zeros(file), torch.zeros(here)) is None
