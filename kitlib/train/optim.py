"""The optimiser, and the running averages of the weights that are evaluated in their place."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kitlib.errors import KitError, unknown


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its numbers; detectron2's defaults."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # "sgd"
    weight_decay: float = 1e-4  # not on the weights of normalisation layers
    clip_norm: float = 0.0  # largest norm of the whole gradient; 0 leaves it alone

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adamw"):
            raise unknown("optimiser", self.name, ("sgd", "adamw"))
        if not (0 <= self.momentum < 1 and self.weight_decay >= 0 and self.clip_norm >= 0):
            raise KitError("optim: momentum must be in 0..1, weight_decay and clip_norm at least 0")


@dataclass(frozen=True)
class AverageConfig:
    """An average of the weights over the training, evaluated and kept in place of the last weights.

    "ema" is an exponential moving average; "swa" the plain average over the last part of the training
    (stochastic weight averaging, Izmailov et al. 2018).
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float = 0.999  # "ema"; (1 + n) / (10 + n) where that is less, so that the start is forgotten
    start: float = 0.75  # "swa" begins after this share of the training
    every: int = 1  # "swa" takes the weights of every so many iterations

    def __post_init__(self) -> None:
        if self.kind not in ("none", "ema", "swa"):
            raise unknown("average", self.kind, ("none", "ema", "swa"))
        if not (0 <= self.decay < 1 and 0 <= self.start < 1 and self.every >= 1):
            raise KitError("average: decay and start must be in 0..1, every at least 1")


NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The model's trainable parameters: those with weight decay, and those of normalisation layers."""
    decayed, free = [], []
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        (free if isinstance(module, NORMS) else decayed).extend(own)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


def build(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """The optimiser of what can be trained; PyTorch's fused form, a quarter of the time on a CPU."""
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class Average:
    """A running average of a model's weights and buffers, with the model's structure: ``self.model``."""

    def __init__(self, model: nn.Module, config: AverageConfig, max_iter: int):
        self.config = config
        self.first = int(config.start * max_iter) if config.kind == "swa" else 0
        self.count = 0
        self.model = deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Take in the model's weights after ``iteration`` (from 0), when they are due."""
        if iteration < self.first or (iteration - self.first) % self._every:
            return
        share = 1 / (self.count + 1)
        if self.config.kind == "ema":
            share = 1 - min(self.config.decay, (1 + self.count) / (10 + self.count))
        ours, theirs = self._tensors(self.model), self._tensors(model)
        torch._foreach_lerp_(ours[0], theirs[0], 1.0 if self.count == 0 else share)
        for mine, new in zip(ours[1], theirs[1], strict=True):
            mine.copy_(new)
        self.count += 1

    def state_dict(self) -> dict:
        """The averaged weights and how many went into them."""
        return {"model": self.model.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        """Go on from ``state_dict``."""
        self.model.load_state_dict(state["model"])
        self.count = state["count"]

    @property
    def _every(self) -> int:
        return self.config.every if self.config.kind == "swa" else 1

    @staticmethod
    def _tensors(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Averaged ones (floating point) and copied ones (counters)."""
        tensors = [*model.parameters(), *model.buffers()]
        return [t for t in tensors if t.is_floating_point()], [
            t for t in tensors if not t.is_floating_point()
        ]
