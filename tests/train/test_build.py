"""The model that is trained: its memory format and its gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from detectron2.utils.events import EventStorage

from kitlib.train.build import build_loader, build_model, memory_format

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


@pytest.mark.parametrize(
    ("device", "amp", "asked", "expected"),
    [
        (GPU, "off", "auto", CONTIGUOUS),  # grouped convolutions in fp32
        (GPU, "bf16", "auto", LAST),
        (GPU, "fp16", "auto", LAST),
        (CPU, "off", "auto", LAST),
        (GPU, "off", "channels_last", LAST),
        (GPU, "bf16", "contiguous", CONTIGUOUS),
        (CPU, "off", "contiguous", CONTIGUOUS),
    ],
)
def test_the_memory_format(make_config, device, amp, asked, expected):
    assert memory_format(make_config(amp=amp, memory_format=asked), device) is expected


@pytest.mark.parametrize(("asked", "last"), [("channels_last", True), ("contiguous", False)])
def test_the_model_lies_so(make_config, alone, asked, last):
    model, _ = build_model(make_config(memory_format=asked), alone)
    kernels = [p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert len(kernels) > 10
    assert {p.is_contiguous(memory_format=LAST) for p in kernels} == {last}


def test_every_parameter_has_a_gradient_also_without_cells(make_config, alone, frames):
    """Or DistributedDataParallel would wait for it."""
    config = make_config()
    model, _ = build_model(config, alone)
    empty = [dataclasses.replace(frame, cells=()) for frame in frames]
    batch = next(iter(build_loader(config, alone, empty)))
    with EventStorage():
        sum(model(batch).values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
