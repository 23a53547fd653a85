"""Counting GPUs."""

import pytest
import torch

from kitlib.errors import KitError
from kitlib.predict import gpu_count


def test_gpu_count():
    present = torch.cuda.device_count()
    assert gpu_count(0) == 0
    assert gpu_count() == present
    with pytest.raises(KitError, match=f"use --gpus {present}$"):
        gpu_count(present + 1)
