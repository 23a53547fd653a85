"""How the model's tensors lie in memory."""

from __future__ import annotations

import pytest
import torch

from kitlib.train.build import build_model, memory_format

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
