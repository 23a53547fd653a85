"""RoIAlign's gradient against torchvision's, and that every pooler of a model has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from kitlib import model as models
from kitlib.model.roi_align import SparseGradientROIAlign

IMAGES, CHANNELS, HEIGHT, WIDTH, SCALE = 2, 3, 9, 13, 0.25


@st.composite
def boxes(draw):
    """Boxes on, over and beyond the border, without extent, upside down, and far larger than the image."""
    number = draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    start = rng.uniform(-20, 60, (number, 2))
    extent = rng.choice([0.0, 0.5, 4.0, 7.0, 29.3, 200.0, -3.0], (number, 2))
    images = rng.integers(0, IMAGES, (number, 1))
    return torch.tensor(np.hstack([images, start, start + extent]), dtype=torch.float32)


def pooled(layer, features: torch.Tensor, rois: torch.Tensor, bins: int, dtype=torch.float32):
    """Values and gradient, with the same gradient coming in."""
    leaf = features.clone().requires_grad_()
    out = layer(leaf.to(dtype), rois)
    coming = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(coming.to(out.dtype))
    return out.detach(), leaf.grad


@settings(deadline=None)
@given(boxes(), st.sampled_from([1, 2, 7]), st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_values_and_gradient_are_torchvision_s(rois, bins, layout):
    features = torch.randn(IMAGES, CHANNELS, HEIGHT, WIDTH).to(memory_format=layout)
    ours = pooled(SparseGradientROIAlign((bins, bins), SCALE, sampling_ratio=0), features, rois, bins)
    theirs = pooled(lambda f, r: roi_align(f, r, bins, SCALE, 0, True), features, rois, bins)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=0)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-5)


def test_a_hand_worked_gradient():
    layer = SparseGradientROIAlign((1, 1), 1.0, sampling_ratio=0)
    features = torch.zeros(1, 1, 4, 4, requires_grad=True)
    layer(features, torch.tensor([[0, 1.0, 1.0, 3.0, 3.0]])).sum().backward()  # pixels 1 and 2, each once
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = 0.25
    np.testing.assert_allclose(features.grad[0, 0], expected)


def test_under_autocast_the_gradient_is_of_the_features_precision():
    rois = torch.tensor([[0, 2.0, 2.0, 30.0, 20.0], [1, 5.0, 0.0, 50.0, 36.0]])
    features = torch.randn(IMAGES, CHANNELS, HEIGHT, WIDTH)
    layer = SparseGradientROIAlign((7, 7), SCALE, sampling_ratio=0)
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = pooled(layer, features, rois, 7, torch.bfloat16)
    _, exact = pooled(layer, features, rois, 7)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mask_stages", ["all", "last"])
def test_every_pooler_of_a_model_has_it(mask_stages):
    model = models.build("tiny", 3, mask_stages)
    poolers = [m for m in model.modules() if isinstance(m, ROIPooler)]
    layers = [layer for pooler in poolers for layer in pooler.level_poolers]
    assert len(layers) >= 8
    assert {type(layer) for layer in layers} == {SparseGradientROIAlign}
    fresh = ROIPooler(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2")
    theirs = [(r.output_size, r.spatial_scale, r.sampling_ratio, r.aligned) for r in fresh.level_poolers]
    ours = poolers[0].level_poolers
    assert isinstance(fresh.level_poolers[0], ROIAlign)
    assert [(r.output_size, r.spatial_scale, r.sampling_ratio, r.aligned) for r in ours] == theirs
