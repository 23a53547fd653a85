from __future__ import annotations

import pytest
import torch

from kitlib.model import compat

compat.apply()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
