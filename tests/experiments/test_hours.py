"""The calculation of hours: what it counts, against convolutions counted by hand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
    return import_module("hours")


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_grouped_convolutions_count_three_passes(hours: ModuleType, groups: int) -> None:
    """At each of 10 x 12 pixels 64 outputs are sums of 9 * 64 / groups products, in three passes."""
    layer = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False))
    image = torch.ones(1, 64, 10, 12, requires_grad=True)
    with FlopCounterMode(display=False) as counter, hours.grouped_surplus(layer) as surplus:
        layer(image).sum().backward()
    assert counter.get_total_flops() - sum(surplus) == 3 * 2 * 10 * 12 * 64 * 9 * 64 // groups


def test_bytes_that_wait_for_the_backward_pass(hours: ModuleType) -> None:
    """Of two layers the inputs, 4 * 8 numbers of 4 bytes each; weights do not count."""
    layers = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    count = hours.Count()
    with hours.saved_bytes(layers, count):
        layers(torch.ones(4, 8, requires_grad=True)).sum()
    assert count.saved == 2 * 4 * 8 * 4


def test_cards_beside_a_v100(hours: ModuleType) -> None:
    assert hours.speed("V100", False) == 1
    assert hours.speed("A100", False) == pytest.approx(
        1555 / 900
    )  # its memory gains less than its arithmetic
    assert hours.speed("T4", True) == pytest.approx(1.5 * 320 / 900)
