"""What a training is given, in one configuration. No torch in here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kitlib.config import Affects, Float, Int, Precision, configuration
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.post.config import PostConfig
from kitlib.predict.config import PredictConfig
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig

Count = Annotated[Int, Field(ge=0)]
PositiveCount = Annotated[Int, Field(ge=1)]


@configuration
class OptimConfig:
    """The optimiser and its numbers; detectron2's defaults."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: Float = Field(0.9, ge=0, lt=1)
    """Of "sgd"."""
    weight_decay: Float = Field(1e-4, ge=0)
    """Not on the weights of normalisation layers."""
    clip_norm: Float = Field(0.0, ge=0)
    """The largest norm of the whole gradient; 0 does not clip it."""


@configuration
class AverageConfig:
    """An average of the weights over the training, evaluated and kept in place of the last weights.

    "ema" is an exponential moving average; "swa" the plain average over the last part of the training
    (stochastic weight averaging, Izmailov et al. 2018).
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: Float = Field(0.999, ge=0, lt=1)
    """Of "ema"; (1 + n) / (10 + n) where that is less, so that the start is forgotten."""
    start: Float = Field(0.75, ge=0, lt=1)
    """ "swa" begins after this share of the training."""
    every: PositiveCount = 1
    """ "swa" takes the weights of every so many iterations."""


@configuration
class TrainConfig:
    """One training. The defaults are the paper's where it says anything."""

    out: Annotated[str, Affects("place")]
    """The folder of the training."""
    train: Annotated[str, Affects("place")]
    """Frames to train on, a file of ``records.write_frames``."""
    categories: tuple[str, ...]
    """Class names in the model's order; ``("cell",)`` takes every cell as one class."""
    val: Annotated[str, Affects("place")] = ""
    """Frames to evaluate on, of the same kind; "" for no evaluation."""
    weights: str = ""
    """What to start from, see ``kitlib.model.weights``; "" for random weights."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    average: AverageConfig = Field(default_factory=AverageConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
    post: PostConfig = Field(default_factory=PostConfig)
    max_iter: PositiveCount = 5000
    images_per_batch: PositiveCount = 2
    """Of all processes together, for one optimiser step."""
    accumulate: PositiveCount = 1
    """Pieces in which each process takes its share of the batch, to save memory."""
    amp: Precision = "off"
    """Arithmetic of the forward pass; "fp16" for GPUs without bf16."""
    memory_format: Annotated[Literal["auto", "channels_last", "contiguous"], Affects("speed")] = "auto"
    """How the model's tensors lie in memory, in PyTorch's words; "auto" is channels_last but for "off" on a
    GPU, where grouped convolutions may be many times slower so."""
    eval_every: Annotated[Count, Affects("watching")] = 0
    """Iterations between evaluations; 0 evaluates the last one only."""
    patience: Annotated[Count, Affects("watching")] = 0
    """Stop after this many evaluations without a better score; 0 never does."""
    checkpoint_every: Annotated[Count, Affects("speed")] = 500
    """Iterations between checkpoints; 0 for one at the end only."""
    workers: Annotated[Count, Affects("speed")] = 2
    """Processes that prepare images, for each training process; 0 prepares them in that one."""
    seed: Int = 0

    def __post_init__(self) -> None:
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ValueError(f"categories must be different names, at least one, not {list(self.categories)}")
        if self.model.num_classes != len(self.categories):
            raise ValueError(
                f"model.num_classes is {self.model.num_classes}, but there are {len(self.categories)} "
                f"categories ({', '.join(self.categories)}); make them agree"
            )

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
