"""Everything that a training is told, in one configuration. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kitlib.errors import KitError, unknown
from kitlib.model.augment import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.post.thresholds import PostConfig
from kitlib.predict.config import PredictConfig
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig


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


@dataclass(frozen=True)
class TrainConfig:
    """One training. The defaults are the paper's where it says anything.

    Attributes:
        out: the run's folder.
        train: frames to train on, a file of ``records.write_frames``.
        categories: class names in the model's order; ``("cell",)`` takes every cell as one class.
        val: frames to evaluate on, of the same kind; "" for no evaluation.
        weights: what to start from, see ``kitlib.model.weights``; "" for random weights.
        replicate_classes: spread a one-class checkpoint's predictors over the classes.
        images_per_batch: of all processes together, for one optimiser step.
        accumulate: pieces in which each process takes its share of the batch, to save memory.
        amp: arithmetic of the forward pass; "fp16" for GPUs without bf16.
        memory_format: how the model's tensors lie in memory, in PyTorch's words; "auto" is channels_last but
            for "off" on a GPU, where grouped convolutions may be many times slower so.
        sync_bn: BatchNorm takes its statistics over all processes.
        eval_every: iterations between evaluations; 0 evaluates the last one only.
        patience: stop after this many evaluations without a better score; 0 never does.
        checkpoint_every: iterations between checkpoints; 0 for one at the end only.
        max_skipped: steps in 100 that may be skipped for a loss that is not a number, before giving up.
        workers: processes that prepare images, for each training process; 0 prepares them in that one.
    """

    out: str
    train: str
    categories: tuple[str, ...]
    val: str = ""
    weights: str = ""
    replicate_classes: bool = True
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    post: PostConfig = field(default_factory=PostConfig)
    max_iter: int = 5000
    images_per_batch: int = 2
    accumulate: int = 1
    amp: Literal["off", "bf16", "fp16"] = "off"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    sync_bn: bool = False
    eval_every: int = 0
    patience: int = 0
    checkpoint_every: int = 500
    max_skipped: int = 10
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise KitError(f"categories must be different names, at least one, not {list(self.categories)}")
        if self.model.num_classes != len(self.categories):
            raise KitError(
                f"model.num_classes is {self.model.num_classes}, but there are {len(self.categories)} "
                f"categories ({', '.join(self.categories)}); make them agree"
            )
        for name, least in {"max_iter": 1, "images_per_batch": 1, "accumulate": 1}.items():
            if getattr(self, name) < least:
                raise KitError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("eval_every", "patience", "checkpoint_every", "max_skipped", "workers"):
            if getattr(self, name) < 0:
                raise KitError(f"{name} must not be negative, but is {getattr(self, name)}")

    def most_processes(self, present: int) -> int:
        """As many of ``present`` processes as can share a batch evenly; one where none can."""
        pieces = range(1, present + 1)
        even = [n for n in pieces if self.images_per_batch % (n * self.accumulate) == 0]
        return max(even, default=min(present, 1))

    def images_per_process(self, world: int) -> int:
        """How many of a batch's images each of ``world`` processes takes.

        Raises:
            KitError: they cannot be shared out evenly, in ``accumulate`` pieces each.
        """
        each, rest = divmod(self.images_per_batch, world)
        if rest or not each or each % self.accumulate:
            pieces = f" in {self.accumulate} pieces each" if self.accumulate > 1 else ""
            raise KitError(
                f"images_per_batch {self.images_per_batch} cannot be shared by {world} processes{pieces}; "
                f"make it a multiple of {world * self.accumulate}, or give fewer --gpus"
            )
        return each
