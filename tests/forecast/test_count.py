"""What is counted, against convolutions worked out by hand and times that detectron2 published."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kitlib.forecast import cards, count
from kitlib.model import build
from kitlib.model.presets import ModelConfig

# detectron2's own number of proposals.
STOCK = {"rpn_pre_nms_topk": [2000, 1000], "rpn_post_nms_topk": [1000, 1000]}


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_grouped_convolutions_count_three_passes(groups: int) -> None:
    """At each of 10 x 12 pixels 64 outputs are sums of 9 * 64 / groups products, in three passes."""
    with count._counting() as (_, operations):
        layer = nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)
        layer(torch.ones(1, 64, 10, 12, requires_grad=True)).sum().backward()
    assert operations() == 3 * 2 * 10 * 12 * 64 * 9 * 64 // groups


def test_memory_is_what_lives_at_one_time() -> None:
    """Of three tensors of 4,000 bytes, one after the other, two are alive when the next is made."""
    with count._counting() as (memory, _):
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second + 1
        assert memory.peak == 8_000
        both = torch.cat([second, third])
        assert memory.peak == 16_000
        view = both[:10]
        assert memory.peak == 16_000
        del view


@pytest.mark.parametrize("preset", ["tiny", "lite0"])
def test_a_model_of_tensors_without_numbers_is_as_large_as_the_real_one(preset: str) -> None:
    real = build(preset, 3)
    found = count.sizes(ModelConfig(preset, 3))
    assert found.weights == sum(tensor.nbytes for tensor in real.state_dict().values())
    assert found.trained == sum(p.nbytes for p in real.parameters() if p.requires_grad)


def test_a_step_keeps_at_least_weights_gradients_and_momentum() -> None:
    model = ModelConfig("tiny", 3)
    one, two = (count.training(model, images, (128, 128)) for images in (1, 2))
    kept = count.sizes(model)
    assert one.gib - count.CUDA_GIB > (kept.weights + 2 * kept.trained) / 2**30
    assert two.operations == pytest.approx(2 * one.operations)
    assert one.gib < two.gib < 2 * one.gib


@pytest.mark.parametrize(("views", "detections"), [(1, 100), (1, 256), (1, 600), (2, 300)])
def test_masks_cost_the_same_in_one_piece_or_in_many(views: int, detections: int) -> None:
    """Each of 3 branches of ``tiny`` has two convolutions, an upsampling and a layer for 3 classes."""
    found, without = (count.prediction(ModelConfig("tiny", 3), views, (64, 96), n) for n in (detections, 0))
    at_14 = 2 * 9 * 64 * 64 * 14 * 14
    upsampling, last = 2 * 4 * 64 * 64 * 14 * 14, 2 * 64 * 3 * 28 * 28
    branch = 2 * at_14 + upsampling + last
    assert found.operations - without.operations == views * detections * 3 * branch


def test_the_share_of_the_peak_is_that_of_detectron2s_published_times(monkeypatch: Any) -> None:
    """Cascade R50 on a V100: 0.328 s for a step with 2 images, 0.053 s for an image (MODEL_ZOO.md).

    COCO's images have 7 objects, which some 40 of 512 boxes match, and 30 detections.
    """
    model, size = ModelConfig("r50", 80, "last", STOCK), (800, 1088)
    monkeypatch.setattr(count, "MATCHED", 40 / 512)
    step, frame = count.training(model, 1, size), count.prediction(model, 1, size, 30)
    peak = 1e12 * cards.CARDS["V100"].single
    assert step.operations / (0.328 / 2) / peak == pytest.approx(cards.SHARE_OF_PEAK["training"], abs=0.02)
    assert frame.operations / 0.053 / peak == pytest.approx(cards.SHARE_OF_PEAK["prediction"], abs=0.02)
