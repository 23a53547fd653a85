"""Knowing when memory ran out."""

from __future__ import annotations

import torch

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The context in which matrices are multiplied in the numbers of ``amp``: "off", "bf16" or "fp16"."""
    return torch.autocast(device.type, _TYPES.get(amp, torch.float32), enabled=amp != "off")


# What the CPU's allocator and cuBLAS say; torch has no class of its own for them.
_SAYINGS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the GPU's or the host's memory was too small."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)
