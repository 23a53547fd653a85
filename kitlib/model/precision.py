"""Mixed precision by name."""

from __future__ import annotations

import torch

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The context in which matrices are multiplied in the numbers of ``amp``: "off", "bf16" or "fp16"."""
    return torch.autocast(device.type, _TYPES.get(amp, torch.float32), enabled=amp != "off")
