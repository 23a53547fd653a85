"""A timm model as the bottom-up half of the feature pyramid."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import timm
import torch
from detectron2.modeling.backbone import Backbone
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from kitlib.errors import KitError

_STRIDES = (4, 8, 16, 32)
# Height and width of a trial image: multiples of 32 that no model for a single size of image takes.
_TRIAL_SIZE = (96, 160)
_ADVICE = "choose one such as resnet50, convnext_tiny or tf_efficientnetv2_s"


class TimmBackbone(Backbone):
    """Features of a timm model at four strides, named as a ResNet's: res2 (the finest), res3, res4, res5.

    Args:
        name: timm's name of the model, with or without a weights tag: "convnext_tiny", "resnet18.a1_in1k".
        norm: "FrozenBN" freezes the model's batch norms, "SyncBN" synchronises them, "BN" and "GN" leave the
            model as timm makes it (timm's GroupNorm models have other names, such as "resnet50_gn").
        freeze_at: n >= 2 freezes every parameter that res{n} depends on; 0 and 1 freeze nothing.

    Raises:
        KitError: the model is unknown, lacks one of the strides, or takes a single size of image.
    """

    def __init__(self, name: str, norm: str = "BN", freeze_at: int = 0) -> None:
        super().__init__()
        self.body, self.channels_last = _create(name)
        if norm == "FrozenBN":
            self.body = freeze_batch_norm_2d(self.body)
        elif norm == "SyncBN":
            self.body = convert_sync_batchnorm(self.body)
        self._out_features = ["res2", "res3", "res4", "res5"]
        self._out_feature_strides = dict(zip(self._out_features, _STRIDES, strict=True))
        channels = _feature_info(self.body).channels()
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        if freeze_at >= 2:
            self._freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), H and W multiples of 32 -> (N, C, H / stride, W / stride) by level."""
        return dict(zip(self._out_features, _run(self.body, x, self.channels_last), strict=True))

    def _freeze(self, freeze_at: int) -> None:
        """Freeze what res{freeze_at} depends on: the parameters for which it has a gradient."""
        features = self.eval()(torch.zeros(1, 3, *_TRIAL_SIZE))[f"res{freeze_at}"]
        parameters = list(self.body.parameters())
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is None)


def published_pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, per channel in grey levels 0-255, that a model's published weights were trained with.

    Raises:
        KitError: an unknown model.
    """
    published = timm.get_pretrained_cfg(_known(name)) or PretrainedCfg()
    return tuple(255 * m for m in published.mean), tuple(255 * s for s in published.std)


def _known(name: str) -> str:
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        raise KitError(f"unknown timm model '{name}': did you mean {' or '.join(near) or 'another'}?")
    return name


def _feature_info(body: nn.Module) -> FeatureInfo:
    info = body.feature_info
    if not isinstance(info, FeatureInfo):
        raise AttributeError("feature_info")
    return info


def _indices(name: str) -> list[int]:
    """Which of a model's feature maps to take: for each of ``_STRIDES`` the last one that has it."""
    try:
        # kitlib.forecast.count builds models of fake tensors, which do not mix with those of this device.
        with _disable_current_modes(), torch.device("meta"):
            found = _feature_info(timm.create_model(_known(name), features_only=True)).reduction()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise KitError(f"timm model '{name}' gives no feature maps ({error}); {_ADVICE}") from error
    if missing := [stride for stride in _STRIDES if stride not in found]:
        raise KitError(f"timm model '{name}' has features at strides {found}, none at {missing}; {_ADVICE}")
    return [len(found) - 1 - found[::-1].index(stride) for stride in _STRIDES]


def _create(name: str) -> tuple[nn.Module, bool]:
    """The model, tried on an image of ``_TRIAL_SIZE``, and whether its features have the channels last."""
    indices = _indices(name)
    sizes = [(_TRIAL_SIZE[0] // stride, _TRIAL_SIZE[1] // stride) for stride in _STRIDES]
    # Models with window attention need the option to take any size; other models do not know it.
    attempts: tuple[dict[str, Any], ...] = ({}, {"strict_img_size": False})
    for options in attempts:
        try:
            body = timm.create_model(name, features_only=True, out_indices=indices, **options)
            channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
            with torch.no_grad():
                features = _run(body.eval(), torch.zeros(1, 3, *_TRIAL_SIZE), channels_last)
        except (RuntimeError, AssertionError, TypeError, ValueError):
            continue
        if [tuple(x.shape[-2:]) for x in features] == sizes:
            return body, channels_last
    raise KitError(f"timm model '{name}' does not take images of any size; {_ADVICE}")


def _run(body: nn.Module, x: Tensor, channels_last: bool) -> list[Tensor]:
    features = body(x)
    return [f.permute(0, 3, 1, 2).contiguous() for f in features] if channels_last else features
