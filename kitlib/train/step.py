"""One optimiser step on one batch, on every process, and what can go wrong in it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kitlib.errors import KitError
from kitlib.runtime.gpus import autocast, ran_out_of_memory
from kitlib.train.processes import Processes

Sample = dict[str, Any]

# Values that a process sends after a step: one whose model failed does not know how many losses there are.
_SENT = 32


@dataclass(frozen=True)
class Outcome:
    """What a step did.

    Attributes:
        losses: by name, averaged over the batch and the processes; empty when there were none.
        grad_norm: of the whole gradient, before clipping.
        applied: whether the weights moved.
        faulty: ids of the images whose loss or gradient was not a number; the step was skipped.
    """

    losses: dict[str, float] = field(default_factory=dict)
    grad_norm: float = math.nan
    applied: bool = False
    faulty: tuple[str, ...] = ()

    @property
    def total_loss(self) -> float:
        return sum(self.losses.values()) if self.losses else math.nan


class Stepper:
    """Forward, backward, average over the processes, clip, step; all processes take the same decision.

    Args:
        model: on this process's device; every process gets the weights of process 0.
        optimizer: of the model's parameters.
        here: this process among its peers.
        amp: "off", "bf16" or "fp16" (with a gradient scaler).
        accumulate: equal pieces in which each process's part of the batch goes through the model.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        here: Processes,
        amp: str = "off",
        accumulate: int = 1,
        clip_norm: float = 0.0,
    ):
        self.network, self.optimizer, self.here = here.distribute(_Losses(model)), optimizer, here
        self.amp, self.accumulate, self.clip_norm = amp, accumulate, clip_norm or math.inf
        self.scaler = torch.amp.GradScaler(here.device.type, enabled=amp == "fp16")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.statistics = [b for m in model.modules() if _is_batch_norm(m) for b in m.buffers()]

    def __call__(self, batch: list[Sample]) -> Outcome:
        """Take one step on this process's part of the batch.

        Raises:
            KitError: memory ran out; the images, the memory and the parameters to change.
        """
        statistics = [b.clone() for b in self.statistics]
        ids = [str(sample["image_id"]) for sample in batch]
        try:
            own = self._backward(batch)
            # The total comes first: of a process whose model failed it is all that the others understand.
            losses = torch.stack(list(own.values()))
            values = torch.cat([losses.sum(0, keepdim=True), losses])
            total, *each = self.here.mean(nn.functional.pad(values, (0, _SENT - len(values))))
            if not math.isfinite(total):
                return self._skip(statistics, [] if values[0].isfinite() else ids)
            return self._apply(dict(zip(own, each, strict=False)), statistics, ids)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            raise KitError(self._too_little_memory(batch)) from error
        finally:
            # Several processes keep the gradients where they are averaged.
            self.optimizer.zero_grad(set_to_none=self.here.world == 1)

    def _backward(self, batch: list[Sample]) -> dict[str, torch.Tensor]:
        """The losses of this process's images; leaves gradients averaged over the processes."""
        losses: dict[str, torch.Tensor] = {}
        size = len(batch) // self.accumulate
        for start in range(0, len(batch), size):
            with self._averaging(last=start + size == len(batch)):
                with autocast(self.here.device, self.amp):
                    piece = {
                        name: loss.float() / self.accumulate
                        for name, loss in self.network(batch[start : start + size]).items()
                    }
                self.scaler.scale(sum(piece.values())).backward()
            for name, loss in piece.items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
        return losses

    def _averaging(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged once a batch, after its last piece."""
        if isinstance(self.network, DistributedDataParallel) and not last:
            return self.network.no_sync()
        return nullcontext()

    def _apply(self, losses: dict[str, float], statistics: list[torch.Tensor], ids: list[str]) -> Outcome:
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.clip_norm))
        finite = math.isfinite(norm)
        # An overflow is how the scaler finds its range; it skips the step itself.
        overflow = not finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if finite or overflow:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if not finite and not overflow:
            return self._skip(statistics, ids)
        return Outcome(losses, norm, finite)

    def _skip(self, statistics: list[torch.Tensor], ids: list[str]) -> Outcome:
        """Leave everything as it was before the batch; BatchNorm has taken it in already."""
        for buffer, before in zip(self.statistics, statistics, strict=True):
            buffer.copy_(before)
        return Outcome(faulty=tuple(i for there in self.here.gather(ids) for i in there))

    def _too_little_memory(self, batch: list[Sample]) -> str:
        images = ", ".join(
            f"{sample['image_id']} ({' x '.join(map(str, sample['image'].shape[1:]))})" for sample in batch
        )
        kind = "GPU memory" if self.here.device.type == "cuda" else "memory"
        precision = ", or set amp to bf16" if self.amp == "off" else ""
        return (
            f"out of {kind} on the images {images}; {self.here.memory_taken()}. Lower images_per_batch, "
            f"raise accumulate (now {self.accumulate}), make augment.crop or augment.scale smaller{precision}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's and the gradient scaler's state."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


class _Losses(nn.Module):
    """The model's losses; one of NaN where detectron2 gives up on proposals that are not numbers.

    That one depends on every parameter, so that the process takes its part in averaging the gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: list[Sample]) -> dict[str, torch.Tensor]:
        try:
            return self.model(batch)
        except FloatingPointError:
            sums = [p.float().sum() for p in self.model.parameters() if p.requires_grad]
            return {"loss": math.nan * torch.stack(sums).sum()}


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
