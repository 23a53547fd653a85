"""Weights loaded into whole models: from other models, of a backbone alone, and those that do not fit."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from safetensors.torch import save_file
from torch import Tensor, nn

from kitlib.errors import KitError
from kitlib.model import build, checkpoint, weights
from kitlib.model.architecture import to_cfg
from kitlib.model.checkpoint import Checkpoint
from kitlib.model.detector import WeightedRCNN
from kitlib.model.presets import ModelConfig
from kitlib.model.weights import STATISTICS, match

MASK_HEAD = "roi_heads.mask_head."


@pytest.fixture(scope="module")
def one_class() -> nn.Module:
    torch.manual_seed(0)
    model = build("tiny", num_classes=1)
    for name, parameter in model.named_parameters():  # predictors start near zero, almost equal
        if "predictor" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save(model: nn.Module, path: Path, drop: str = "^$") -> str:
    """Tensors as another program would write them."""
    torch.save({"model": {n: t for n, t in model.state_dict().items() if not re.search(drop, n)}}, path)
    return str(path)


def save_ours(model: nn.Module, path: Path, drop: str = "^$", **more: Tensor) -> str:
    tensors = {n: t for n, t in model.state_dict().items() if not re.search(drop, n)}
    categories = tuple(f"type{k}" for k in range(model.config.num_classes))
    return str(checkpoint.save(path, Checkpoint(model.config, categories, 1, tensors | more)))


def holds(model: nn.Module, state: dict[str, Tensor]) -> bool:
    mine = model.state_dict()
    return all(torch.equal(mine[name], tensor) for name, tensor in state.items())


def test_a_model_saved_and_loaded_is_the_same(one_class: nn.Module, tmp_path: Path) -> None:
    model = build("tiny", num_classes=1)
    report = weights.load(model, save(one_class, tmp_path / "x.pth"))
    assert holds(model, one_class.state_dict())
    assert set(report.loaded) == set(model.state_dict())
    assert (
        report.missing == report.unexpected == report.mismatched == report.replicated == report.advice == ()
    )


# ------------------------------------------------------------------------------------------------ transfer


def raw(model: nn.Module, features: dict[str, Tensor], proposals: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Class probabilities and boxes of the same proposals at each stage."""
    heads, scores, boxes = model.roi_heads, [], []
    for stage in range(3):
        predictions = heads._run_stage([features[n] for n in heads.box_in_features], [proposals], stage)
        scores += heads.box_predictor[stage].predict_probs(predictions, [proposals])
        boxes += heads.box_predictor[stage].predict_boxes(predictions, [proposals])
    return scores, boxes


def test_one_class_becomes_three_that_share_its_probability(
    one_class: nn.Module, item: Callable, tmp_path: Path
) -> None:
    three = build("tiny").eval()
    report = weights.load(three, save(one_class, tmp_path / "x.pth"))
    assert not report.mismatched
    assert len(report.replicated) == 3 * 2 + 3 * 2  # weight and bias of each stage's scores and masks
    with torch.no_grad():
        images = one_class.preprocess_image([item(5)])
        features = one_class.backbone(images.tensor)
        [proposals], _ = one_class.proposal_generator(images, features)
        (one_scores, one_boxes), (scores, boxes) = (raw(m, features, proposals) for m in (one_class, three))
        for a, b in zip(one_scores, scores, strict=True):
            torch.testing.assert_close(b[:, 3], a[:, 1])
            torch.testing.assert_close(b[:, :3], a[:, :1].expand(-1, 3) / 3)
        for a, b in zip(one_boxes, boxes, strict=True):
            assert torch.equal(a, b)
        for branch in range(3):
            pooled = torch.randn(4, 64, 14, 14)
            a, b = (
                [*m.roi_heads.mask_head_stages, m.roi_heads.mask_head][branch].layers(pooled)
                for m in (one_class, three)
            )
            torch.testing.assert_close(b, a.expand(-1, 3, -1, -1))


def test_one_mask_branch_fills_all(one_class: nn.Module, tmp_path: Path) -> None:
    """As in detectron2's published cascades."""
    model = build("tiny", num_classes=1)
    report = weights.load(model, save(one_class, tmp_path / "x.pth", drop="mask_head_stages"))
    assert report.missing == ()
    wanted = one_class.roi_heads.mask_head.state_dict()
    assert all(
        holds(branch, wanted) for branch in [model.roi_heads.mask_head, *model.roi_heads.mask_head_stages]
    )


def test_of_all_branches_the_last_is_kept(one_class: nn.Module, tmp_path: Path) -> None:
    model = build("tiny", num_classes=1, mask_stages="last")
    report = weights.load(model, save(one_class, tmp_path / "x.pth"))
    assert holds(model.roi_heads.mask_head, one_class.roi_heads.mask_head.state_dict())
    assert all("mask_head_stages" in name for name in report.unexpected)
    assert len(report.unexpected) == 16


def test_a_plain_mask_rcnn_fills_every_stage(one_class: nn.Module, tmp_path: Path) -> None:
    state = {
        n: t for n, t in one_class.state_dict().items() if not re.search(r"mask_head_stages|\.[12]\.", n)
    }
    state = {
        n.replace("box_head.0.", "box_head.").replace("box_predictor.0.", "box_predictor."): t
        for n, t in state.items()
    }
    state |= {n: t for n, t in one_class.state_dict().items() if n.startswith("backbone")}
    torch.save(state, tmp_path / "x.pth")
    model = build("tiny", num_classes=1)
    assert weights.load(model, str(tmp_path / "x.pth")).missing == ()
    for stage in range(3):
        assert holds(model.roi_heads.box_head[stage], one_class.roi_heads.box_head[0].state_dict())


def test_many_classes_leave_only_the_predictors_random(tmp_path: Path) -> None:
    """COCO's 80 classes and other anchors, as the zoo has them."""
    file = save(build("tiny", 80, "last", anchor_ratios=[0.2, 0.5, 1, 2, 5]), tmp_path / "x.pth")
    report = weights.load(build("tiny"), file)
    assert report.replicated == ()
    layers = {m.name.split(".")[-2] for m in report.mismatched}
    assert layers == {"cls_score", "predictor", "objectness_logits", "anchor_deltas"}
    assert report.missing == ()


# ------------------------------------------------------------------------------------------------ backbones


def caffe2(name: str) -> str:
    """Detectron's name of a ResNet's tensor, from detectron2's (the reverse of its own conversion)."""
    name = (
        name.removeprefix("backbone.bottom_up.")
        .replace("stem.conv1.norm", "res_conv1_bn")
        .replace("stem.", "")
    )
    for number, letter in (("1", "a"), ("2", "b")):
        name = re.sub(rf"(res\d\.\d\.)conv{number}", rf"\1branch2{letter}", name)
    name = name.replace("shortcut", "branch1").replace(".norm", "_bn")
    for ours, theirs in (("_bn.weight", "_bn_s"), ("_bn.bias", "_bn_b"), (".weight", "_w")):
        name = name.replace(ours, theirs)
    return name.replace(".", "_")


def test_an_imagenet_backbone_with_caffe2s_names(tmp_path: Path) -> None:
    source = build("tiny", norm="FrozenBN")
    body = {n: t for n, t in source.state_dict().items() if n.startswith("backbone.bottom_up.")}
    arrays = {caffe2(n): t.numpy() for n, t in body.items() if "running" not in n}
    assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_bn_b", "res5_1_branch2b_w"} <= set(arrays)
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({**arrays, "fc1000_w": arrays["conv1_w"]}, 2))
    model = build("tiny", norm="FrozenBN")
    report = weights.load(model, str(tmp_path / "R.pkl"))
    assert holds(model, {n: t for n, t in body.items() if "running" not in n})
    assert len(report.loaded) == len(arrays)
    assert report.unexpected == report.mismatched == report.advice == ()
    assert not any("bottom_up" in name for name in report.missing)
    assert any(name.startswith("roi_heads.box_head") for name in report.missing)
    counts = f"tensors {len(arrays)} loaded, {len(report.missing)} left random"
    assert report.summary == f"weights: {tmp_path / 'R.pkl'}: {counts}"


def test_a_backbone_of_torchvision_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    model = build("tiny", norm="BN").eval()
    report = weights.load(model, str(tmp_path / "resnet18.pth"))
    assert report.unexpected == ("fc.weight", "fc.bias")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone.bottom_up(image)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for level in (1, 2, 3, 4):
            x = theirs.get_submodule(f"layer{level}")(x)
            torch.testing.assert_close(features[f"res{level + 1}"], x)
    assert "stride_in_1x1" in report.advice[0]


def test_a_timm_backbone_from_a_file_of_timms_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("convnext_atto").eval()  # with its classifier, as published
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    model = build("r50", backbone="convnext_atto", fpn_channels=64, box_width=64, mask_width=32).eval()
    report = weights.load(model, str(tmp_path / "model.safetensors"))
    assert not any("bottom_up" in name for name in report.missing)
    assert all(name.startswith("head.") for name in report.unexpected)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone.bottom_up(image)
        for level, wanted in enumerate(theirs.forward_intermediates(image, intermediates_only=True)[-4:]):
            torch.testing.assert_close(features[f"res{level + 2}"], wanted)


# ------------------------------------------------------------------------------------------------ misfits


def test_weights_of_another_preset(one_class: nn.Module, tmp_path: Path) -> None:
    file = save(one_class, tmp_path / "tiny.pth")
    model = build("tiny", fpn_channels=32)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(KitError, match=r"tiny\.pth does not fit preset 'tiny' .*fpn"):
        weights.load(model, file)
    assert holds(model, before)  # nothing was loaded by halves


@pytest.mark.parametrize("drop", ["backbone", r"res[345]"])
def test_weights_without_most_of_the_backbone(drop: str, one_class: nn.Module, tmp_path: Path) -> None:
    file = save(one_class, tmp_path / "x.pth", drop=drop)
    with pytest.raises(KitError, match=r"x\.pth.* does not fit preset 'tiny'.*% of the backbone"):
        weights.load(build("tiny", 1), file)


def test_weights_of_something_else(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3, 3), "decoder.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(KitError, match="0% of the backbone"):
        weights.load(build("tiny"), str(tmp_path / "x.pth"))


def test_published_weights_have_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str) -> None:
        raise KitError(f"asked for {source}")

    monkeypatch.setattr(weights.sources, "read", read)
    with pytest.raises(KitError, match=r"detectron2://ImageNetPretrained/MSRA/R-50\.pkl"):
        weights.load(build("r50"), "imagenet")
    with pytest.raises(KitError, match="timm://resnet18"):
        weights.load(build("tiny", backbone="resnet18"), "imagenet")
    with pytest.raises(KitError, match="no 'coco' weights exist for preset 'tiny', only for r50, x152"):
        weights.load(build("tiny"), "coco")


# ------------------------------------------------------------------------------------------- files of ours


def test_a_file_of_ours_fills_all_of_the_model(one_class: nn.Module, tmp_path: Path) -> None:
    model = build("tiny", num_classes=1)
    report = weights.load(model, save_ours(one_class, tmp_path / "x.pth"))
    assert holds(model, one_class.state_dict())
    assert set(report.loaded) == set(model.state_dict())
    assert report.missing == report.unexpected == report.mismatched == report.advice == ()


def test_a_pretraining_on_one_class_starts_one_on_three(one_class: nn.Module, tmp_path: Path) -> None:
    grown, wanted = build("tiny"), build("tiny")
    report = weights.load(grown, save_ours(one_class, tmp_path / "ours.pth"))
    weights.load(wanted, save(one_class, tmp_path / "foreign.pth"))
    assert holds(grown, wanted.state_dict())
    assert len(report.replicated) == 12


def test_other_anchors_leave_the_predictors_of_a_file_of_ours(tmp_path: Path) -> None:
    report = weights.load(build("tiny"), save_ours(build("tiny", anchor_ratios=[1.0]), tmp_path / "x.pth"))
    assert {m.name.split(".")[-2] for m in report.mismatched} == {"objectness_logits", "anchor_deltas"}


@pytest.mark.parametrize(
    ("options", "drop", "more", "message"),
    [
        ({}, "fpn_lateral2", {}, r"that model .missing from the file: .*lateral2\.weight and 2 more.; build"),
        ({}, "^$", {"head.bias": torch.ones(1)}, r"that model .unknown to the model: head\.bias.; build"),
        ({"fpn_channels": 32}, "^$", {}, r"options .'fpn_channels': 32. .of another shape: .*fpn"),
        (
            {"mask_stages": "last"},
            "^$",
            {},
            r"mask_stages last .unknown to the model: .* and 15 more",
        ),
        ({"norm": "BN"}, "^$", {}, r"options .'norm': 'BN'. .missing from the file: .*running_mean and"),
    ],
)
def test_a_file_of_ours_fits_wholly_or_not_at_all(
    options: Any, drop: str, more: Any, message: str, one_class: nn.Module, tmp_path: Path
) -> None:
    file = save_ours(one_class, tmp_path / "x.pth", drop, **more)
    model = build("tiny", num_classes=1, **options)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    beginning = (
        r"x\.pth names preset 'tiny' with num_classes 1, mask_stages all as its model and does not fit "
    )
    with pytest.raises(KitError, match=beginning + ".*" + message):
        weights.load(model, file)
    assert holds(model, before)


# ------------------------------------------------------------------------------------------------ advice


def test_random_weights_are_advised_upon() -> None:
    report = weights.load(build("r50"), "")
    assert report.loaded == ()
    assert [sentence.split(":")[0] for sentence in report.advice] == [
        "frozen batch norms diverge on random weights",
        "the first stages are frozen at random values",
    ]
    assert weights.load(build("tiny"), "").advice == ()


def test_statistics_that_have_no_place_are_advised_upon(tmp_path: Path) -> None:
    file = save(build("tiny", norm="BN"), tmp_path / "bn.pth")
    [sentence] = weights.load(build("tiny"), file).advice
    assert "do not fit norm GN" in sentence
    file = save(build("tiny", norm="BN"), tmp_path / "folded.pth", drop=r"running|num_batches")
    [sentence] = weights.load(build("tiny", norm="BN"), file).advice
    assert "use norm FrozenBN" in sentence


def test_a_report_reads_as_a_table(one_class: nn.Module, tmp_path: Path) -> None:
    file = save(one_class, tmp_path / "x.pth", drop="rpn_head")
    report = weights.load(build("tiny", 1, "last"), file)
    assert f"weights: {file}" in str(report)
    rows = {line.split()[0]: line.split()[1:] for line in report.table().splitlines()}
    assert rows["part"] == ["loaded", "missing", "mismatched"]
    assert rows["proposal_generator.rpn_head"] == ["0", "6", "0"]
    assert rows["roi_heads.mask_head"] == ["8", "0", "0"]
    assert rows["backbone.fpn"] == ["24", "0", "0"]
    assert "not used: 16 (roi_heads.mask_head_stages.0" in str(report)


# ------------------------------------------------------------------------ the paper's first weights


def caffe2_names():
    """Names and shapes of the published ImageNet file, by the rules of Caffe2's ResNeXt: no storage."""
    shapes = {"conv1_w": (64, 3, 7, 7), "res_conv1_bn_s": (64,), "res_conv1_bn_b": (64,)}
    shapes |= {"pred_w": (5000, 2048), "pred_b": (5000,)}
    channels = 64
    for stage, blocks in zip((2, 3, 4, 5), (3, 8, 36, 3), strict=True):
        middle, out = 32 * 8 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for block in range(blocks):
            convs = {
                "branch2a": (middle, channels, 1, 1),
                "branch2b": (middle, middle // 32, 3, 3),
                "branch2c": (out, middle, 1, 1),
                **({"branch1": (out, channels, 1, 1)} if block == 0 else {}),
            }
            for branch, shape in convs.items():
                name, channels = f"res{stage}_{block}_{branch}", out
                shapes |= {f"{name}_w": shape, f"{name}_bn_s": shape[:1], f"{name}_bn_b": shape[:1]}
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def test_the_published_imagenet_file_fills_the_whole_backbone():
    with torch.device("meta"):
        model = WeightedRCNN(to_cfg(ModelConfig("x152")))
    tensors, _ = convert_c2_detectron_names(caffe2_names())
    target = {n: t for n, t in model.state_dict().items() if n.startswith("backbone.bottom_up.")}
    found = match(target, tensors)
    assert {n for n in target if n not in found and not STATISTICS.search(n)} == set()
    assert all(tensors[theirs].shape == target[name].shape for name, theirs in found.items())
