"""Which errors mean that memory ran out."""

import pytest
import torch

from kitlib.runtime.precision import ran_out


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_ran_out(error, means):
    assert ran_out(error) is means


def test_what_torch_itself_says_on_the_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert ran_out(caught.value)
