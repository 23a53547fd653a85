"""timm models under the pyramid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from kitlib.errors import KitError
from kitlib.model import build, weights
from kitlib.model.timm_backbone import TimmBackbone


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "efficientnet_b0",  # blocks in one sequence, norms with an activation
        "convnext_atto",  # no batch norms
        "swin_tiny_patch4_window7_224",  # channels last, and one size of image unless asked
    ],
)
def test_features_have_the_strides_and_channels_they_claim(name: str) -> None:
    body = TimmBackbone(name).eval()
    with torch.no_grad():
        features = body(torch.zeros(1, 3, 64, 128))
    assert list(features) == ["res2", "res3", "res4", "res5"]
    for level, (key, shape) in enumerate(body.output_shape().items()):
        stride = 4 * 2**level
        assert shape.stride == stride
        assert features[key].shape == (1, shape.channels, 64 // stride, 128 // stride)


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_b0"])
def test_it_trains_under_the_cascade(name: str, item: Callable, storage: Any) -> None:
    torch.manual_seed(0)
    model = build("tiny", backbone=name)
    losses = model([item(5), item(0)])
    assert all(isfinite(loss.item()) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_pixels_are_scaled_as_its_weights_were_trained() -> None:
    model = build("r50", backbone="resnet18", fpn_channels=32, box_width=32, mask_width=32)
    published = timm.get_pretrained_cfg("resnet18")
    assert (model.pixel_mean.flatten() / 255).tolist() == pytest.approx(published.mean)
    assert (model.pixel_std.flatten() / 255).tolist() == pytest.approx(published.std)
    assert build("tiny", backbone="resnet18").pixel_std.flatten().tolist() == [12.0] * 3  # said by the preset


@pytest.mark.parametrize(
    ("norm", "kind"), [("FrozenBN", "FrozenBatchNorm"), ("SyncBN", "SyncBatchNorm"), ("BN", "BatchNorm")]
)
def test_its_batch_norms_become_what_is_asked(norm: str, kind: str) -> None:
    body = TimmBackbone("efficientnet_b0", norm=norm)
    norms = {type(m).__name__ for m in body.modules() if "BatchNorm" in type(m).__name__}
    assert norms
    assert all(n.startswith(kind) for n in norms)


def test_frozen_batch_norms_stay_as_loaded_while_all_else_of_lite0_learns(
    item: Callable, storage: Any
) -> None:
    torch.manual_seed(0)
    model = build("lite0")
    assert weights.load(model, "imagenet").advice == ()
    body = {name: tensor.clone() for name, tensor in model.backbone.bottom_up.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = model([item(5), item(3, seed=1)])
    assert all(isfinite(loss.item()) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    optimizer.step()
    changed = {
        n for n, tensor in model.backbone.bottom_up.state_dict().items() if not torch.equal(tensor, body[n])
    }
    assert changed == {name for name in body if "conv" in name}


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("resnet18", {"conv1", "layer1", "layer2"}, {"layer3", "layer4"}),
        ("convnext_atto", {"stem_0", "stages_0", "stages_1"}, {"stages_2", "stages_3"}),
    ],
)
def test_what_a_stage_is_made_from_is_frozen(name: str, inside: set[str], outside: set[str]) -> None:
    body = TimmBackbone(name, norm="FrozenBN", freeze_at=3).body
    frozen = {n.split(".")[0] for n, p in body.named_parameters() if not p.requires_grad}
    trained = {n.split(".")[0] for n, p in body.named_parameters() if p.requires_grad}
    assert inside <= frozen
    assert trained == outside
    assert all(p.requires_grad for p in TimmBackbone(name, norm="FrozenBN").parameters())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet81", "unknown timm model 'resnet81': did you mean resnet18"),
        ("vit_tiny_patch16_224", r"none at \[4, 8, 32\]; choose one such as"),
        ("maxvit_rmlp_pico_rw_256", "does not take images of any size"),
        ("inception_v4", "does not take images of any size"),  # its unpadded convolutions lose pixels
    ],
)
def test_models_that_cannot_serve_are_refused(name: str, said: str) -> None:
    with pytest.raises(KitError, match=said):
        TimmBackbone(name)


@pytest.mark.slow
def test_without_a_connection_its_weights_are_asked_for_as_a_file() -> None:
    code = (
        "from kitlib.model import build, weights; "
        "weights.load(build('tiny', backbone='resnet18'), 'timm://resnet18.a1_in1k')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": os.devnull,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "KitError: cannot get timm's weights of 'resnet18.a1_in1k'" in done.stderr
    assert "give a file of its weights" in done.stderr
