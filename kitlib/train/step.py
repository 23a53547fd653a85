"""One optimiser step on one batch, on every process, and what can go wrong in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.runtime.gpus import autocast, ran_out_of_memory
from kitlib.train.pieces import Piece, Sample, smaller, split
from kitlib.train.processes import Processes


@dataclass(frozen=True)
class Outcome:
    """What a step did.

    Attributes:
        losses: by name, averaged over the batch and the processes; empty when there were none.
        grad_norm: of the whole gradient, before clipping.
        applied: whether the weights moved.
        faulty: ids of the images whose loss or gradient was not a number; the step was skipped.
        halved: ids of the images that were run again in smaller pieces, for want of memory.
    """

    losses: dict[str, float] = field(default_factory=dict)
    grad_norm: float = math.nan
    applied: bool = False
    faulty: tuple[str, ...] = ()
    halved: tuple[str, ...] = ()

    @property
    def total_loss(self) -> float:
        return sum(self.losses.values()) if self.losses else math.nan


class Stepper:
    """Forward, backward, average over the processes, clip, step; all processes take the same decision.

    Args:
        amp: "off", "bf16" or "fp16" (with a gradient scaler).
        accumulate: pieces in which each process's part of the batch goes through the model.
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
        self.model, self.optimizer, self.here = model, optimizer, here
        self.amp, self.accumulate, self.clip_norm = amp, accumulate, clip_norm or math.inf
        self.scaler = torch.amp.GradScaler(here.device.type, enabled=amp == "fp16")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.statistics = [b for m in model.modules() if _is_batch_norm(m) for b in m.buffers()]
        synchronised = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
        self.may_repeat = (
            here.world == 1 or not synchronised
        )  # SyncBN's peers would wait in the repeated pass

    def __call__(self, batch: list[Sample]) -> Outcome:
        """Take one step on this process's part of the batch.

        Raises:
            KitError: GPU memory ran out also for the batch in smaller pieces.
        """
        ids = [str(sample.get("image_id", "?")) for sample in batch]
        statistics = [b.clone() for b in self.statistics]
        losses, halved = self._backward(batch, ids)
        told = self.here.gather((losses, ids if halved else []))
        halved_ids = tuple(i for _, there in told for i in there)
        try:
            if not all(_finite(there) for there, _ in told):
                return self._skip(statistics, [] if _finite(losses) else ids, halved_ids)
            mean = {k: sum(there[k] for there, _ in told) / len(told) for k in losses}
            return self._apply(mean, ids, statistics, halved_ids)
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _apply(
        self,
        losses: dict[str, float],
        ids: list[str],
        statistics: list[torch.Tensor],
        halved: tuple[str, ...],
    ) -> Outcome:
        self.here.average_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.clip_norm))
        finite = math.isfinite(norm)
        # An overflow is how the scaler finds its range; it skips the step itself.
        overflow = not finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if finite or overflow:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if not finite and not overflow:
            return self._skip(statistics, ids, halved)
        return Outcome(losses, norm, finite, halved=halved)

    def _skip(self, statistics: list[torch.Tensor], ids: list[str], halved: tuple[str, ...]) -> Outcome:
        """Leave everything as it was before the batch; BatchNorm has taken it in already."""
        for buffer, before in zip(self.statistics, statistics, strict=True):
            buffer.copy_(before)
        return Outcome(faulty=tuple(i for there in self.here.gather(ids) for i in there), halved=halved)

    def _backward(self, batch: list[Sample], ids: list[str]) -> tuple[dict[str, float], bool]:
        """The losses, none when the model itself gave up on NaN, and whether they took smaller pieces."""
        pieces = split(batch, self.accumulate)
        losses = self._try(pieces)
        if losses is not None:
            return losses, False
        if self.may_repeat:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            losses = self._try(smaller(pieces))
        if losses is None:
            raise KitError(
                f"out of GPU memory on the images {', '.join(ids)}, also in smaller pieces; lower "
                "images_per_batch or raise accumulate, make augment.crop or augment.scale smaller, "
                "or set amp to bf16"
            )
        return losses, True

    def _try(self, pieces: list[Piece]) -> dict[str, float] | None:
        """Forward and backward; None when GPU memory ran out. What the failed pass held is free on return."""
        sums: dict[str, torch.Tensor] = {}
        try:
            for share, samples in pieces:
                with autocast(self.here.device, self.amp):
                    losses = {k: v.float() * share for k, v in self.model(samples).items()}
                self.scaler.scale(sum(losses.values())).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            return None
        except FloatingPointError:  # detectron2's proposals, on NaN
            return {}
        return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's and the gradient scaler's state."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def _finite(losses: dict[str, float]) -> bool:
    return bool(losses) and all(map(math.isfinite, losses.values()))


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
