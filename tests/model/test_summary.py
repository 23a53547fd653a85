"""The parts of a network: numbers against the network that is built with its weights."""

from __future__ import annotations

import pytest

from kitlib import model
from kitlib.model import summary
from kitlib.model.presets import ModelConfig


@pytest.mark.parametrize(("preset", "stages"), [("tiny", "all"), ("tiny", "last"), ("lite0", "all")])
def test_the_blocks_hold_all_parameters(preset: str, stages: str) -> None:
    network = model.build(preset, 2, stages)
    blocks = summary.summarise(ModelConfig(preset, 2, stages))
    assert sum(block.parameters for block in blocks) == sum(p.numel() for p in network.parameters())
    assert [block.name for block in blocks if block.kind == "mask"] == (
        ["mask 1", "mask 2", "mask 3"] if stages == "all" else ["mask 3"]
    )
    assert [block.detail for block in blocks if block.kind == "box"] == ["IoU 0.5", "IoU 0.6", "IoU 0.7"]


def test_channels_and_strides_are_those_of_the_features() -> None:
    import torch

    network = model.build("tiny").eval()
    with torch.no_grad():
        features = network.backbone(torch.zeros(1, 3, 128, 192))
    pyramid = {b.name: b for b in summary.summarise(ModelConfig("tiny")) if b.kind == "pyramid"}
    assert pyramid.keys() == features.keys()
    for name, values in features.items():
        block = pyramid[name]
        assert values.shape[1:] == (block.channels, 128 // block.stride, 192 // block.stride)


def test_the_paper_s_network() -> None:
    blocks = {block.name: block for block in summary.summarise(ModelConfig("x152"))}
    assert [blocks[f"res{n}"].detail for n in range(2, 6)] == [
        "3 blocks",
        "8 blocks",
        "36 blocks",
        "3 blocks",
    ]
    assert [blocks[f"res{n}"].channels for n in range(2, 6)] == [256, 512, 1024, 2048]
    assert blocks["proposals"].detail == "3 anchors"
    assert blocks["box 1"].channels == 1024


def test_a_backbone_of_timm() -> None:
    config = ModelConfig("tiny", options={"backbone": "resnet10t"})
    blocks = [block for block in summary.summarise(config) if block.kind == "backbone"]
    assert [block.stride for block in blocks] == [4, 8, 16, 32]
    assert blocks[0].parameters > 1e6
