"""Weights of images in the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kitlib.model import build


@pytest.fixture
def model() -> nn.Module:
    """One that samples every anchor and proposal, so that its losses do not depend on chance."""
    torch.manual_seed(0)
    return build("tiny", rpn_batch=100_000, roi_batch=100_000, detections=9)


def losses_of(model: nn.Module, batch: list[dict[str, Any]], *weights: float) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return model([{**x, "weight": w} for x, w in zip(batch, weights, strict=True)] if weights else batch)


def test_weights_of_one_leave_everything_as_it_is(model: nn.Module, item: Callable, storage: Any) -> None:
    batch = [item(6, seed=1), item(9, seed=2)]
    assert losses_of(model, batch, 1.0, 1.0) == losses_of(model, batch)


def test_a_weight_that_all_share_scales_every_loss(model: nn.Module, item: Callable, storage: Any) -> None:
    batch = [item(6, seed=1), item(9, seed=2)]
    plain, scaled = losses_of(model, batch), losses_of(model, batch, 0.25, 0.25)
    for name in plain:
        torch.testing.assert_close(scaled[name], 0.25 * plain[name])


def test_each_image_counts_by_its_weight(model: nn.Module, item: Callable, storage: Any) -> None:
    batch = [item(6, seed=1), item(9, seed=2), item(0, seed=3)]
    alone = [losses_of(model, [x]) for x in batch]
    together = losses_of(model, batch, 1.0, 0.5, 2.0)
    assert list(together) == list(alone[0])
    for name, loss in together.items():
        expected = (1.0 * alone[0][name] + 0.5 * alone[1][name] + 2.0 * alone[2][name]) / 3
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_an_image_of_no_weight_teaches_nothing(model: nn.Module, item: Callable, storage: Any) -> None:
    batch, other = [item(6, seed=1), item(9, seed=2)], item(3, seed=8)
    gradients = []
    for second in (batch[1], other):
        model.zero_grad()
        sum(losses_of(model, [batch[0], second], 1.0, 0.0).values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_weights_play_no_part_in_inference(model: nn.Module, item: Callable) -> None:
    model.eval()
    with torch.no_grad():
        [plain], [weighted] = losses_of(model, [item(6)]), losses_of(model, [item(6)], 0.1)
    assert torch.equal(plain["instances"].scores, weighted["instances"].scores)
