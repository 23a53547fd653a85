"""The GPUs of this host."""

from __future__ import annotations

from kitlib.errors import KitError


def gpu_count(asked: int = -1) -> int:
    """How many GPUs to use: as many as asked for, or all there are for -1.

    Raises:
        KitError: more are asked for than there are.
    """
    if asked == 0:
        return 0
    import torch  # only now: it takes seconds

    present = torch.cuda.device_count()
    if asked > present:
        raise KitError(f"{asked} GPUs are asked for but this machine has {present}; use --gpus {present}")
    return present if asked < 0 else asked
