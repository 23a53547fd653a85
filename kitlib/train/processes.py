"""The processes of one training, one a GPU (or one on the CPU), and what they send to each other.

The same code runs for one process and for many.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from kitlib.errors import KitError
from kitlib.runtime import heartbeat, launch, machine

T = TypeVar("T")

# How long one process waits for another. The launcher ends a training of which a process hangs much sooner:
# this is for several hosts, where it does not see all, and lets one of them download weights meanwhile.
_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class Processes:
    """This process among its peers.

    Attributes:
        rank: this process's number; process 0 writes the files.
        world: how many there are, on all hosts.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @heartbeat.waiting()
    def distribute(self, model: nn.Module) -> nn.Module:
        """The model with the parameters and buffers of process 0; its backward passes average gradients.

        A single process gets the model itself. One whose gradients are ready waits for the others; the
        launcher does not take that for a hang.
        """
        if self.world == 1:
            return model
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, src=0)
        # Every parameter takes part in every loss, also of images without cells.
        parallel = DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
        )
        parallel.register_comm_hook(None, lambda _, bucket: _average(parallel.process_group, bucket))
        return parallel

    @heartbeat.waiting()
    def mean(self, values: torch.Tensor) -> list[float]:
        """``values`` (N,) averaged over the processes; NaN or Inf in any of them is NaN or Inf for all."""
        if self.world > 1:
            dist.all_reduce(values)
            values = values / self.world
        return values.tolist()

    @heartbeat.waiting()
    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, for every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    @heartbeat.waiting()
    def share(self, value: T) -> T:
        """Process 0's value, for every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def memory(self) -> dict[str, float]:
        """Peak memory of this process so far in GiB: on the host, and on its GPU if it has one."""
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
        peak = {"host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
        if self.device.type == "cuda":
            peak["gpu_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return peak

    def memory_taken(self) -> str:
        """How much of its memory is in use, for a message that there is too little."""
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            own = torch.cuda.memory_allocated(self.device)
            return (
                f"this process has {own / 2**30:.1f} of the GPU's {total / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} are free"
            )
        own_gib, all_gib = self.memory()["host_gib"], machine.memory_gib()
        return f"this process has taken up to {own_gib:.1f} of the machine's {all_gib:.1f} GiB"

    def fit_batch_norm(self, model: nn.Module) -> nn.Module:
        """The model with a synchronised BatchNorm that works here: PyTorch's own needs several GPUs."""
        if self.world > 1 and self.device.type == "cuda":
            return model
        from detectron2.layers.batch_norm import NaiveSyncBatchNorm

        kind = NaiveSyncBatchNorm if self.world > 1 else nn.BatchNorm2d
        return _replace(model, nn.SyncBatchNorm, kind)


@contextmanager
def join() -> Iterator[Processes]:
    """Join the process group that torchrun described, and leave it at the end.

    Raises:
        KitError: more GPUs were asked for than this host has.
    """
    asked, local = launch.gpus_asked(), int(os.environ.get("LOCAL_RANK", "0"))
    if asked > torch.cuda.device_count():
        raise KitError(
            f"{asked} GPUs were asked for, but PyTorch sees {torch.cuda.device_count()}; lower gpus"
        )
    device = torch.device("cuda", local) if asked else torch.device("cpu")
    if asked:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if asked else "gloo", timeout=_TIMEOUT)
    yield Processes(dist.get_rank(), dist.get_world_size(), device)
    dist.destroy_process_group()  # not after an error: the peers may be gone, and leaving would wait for them


def _average(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DistributedDataParallel's own averaging of a bucket of gradients."""
    if bucket.is_last():
        heartbeat.wait()
    return allreduce_hook(group, bucket)


def _replace(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    """``module`` with every layer of type ``old`` replaced by one of type ``new`` with the same weights."""
    if type(module) is old:
        layer = new(module.num_features, eps=module.eps, momentum=module.momentum, affine=module.affine)
        state = module.state_dict()
        layer.load_state_dict(state)
        return layer.to(next(iter(state.values())))
    for name, part in module.named_children():
        setattr(module, name, _replace(part, old, new))
    return module
