"""What a training is given, in one configuration. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from kitlib import config as configs
from kitlib.config import Affects, Count, Float, Int, Part, PositiveCount, Precision, configuration
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.predict.config import PredictConfig
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig


@configuration
class OptimConfig:
    """The optimiser and its numbers; detectron2's defaults."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or AdamW."""
    momentum: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    """Of "sgd"."""
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-4
    """Not on the weights of normalisation layers."""
    clip_norm: Annotated[Float, Field(ge=0)] = 0.0
    """The largest norm of the whole gradient; 0 does not clip it."""

    @property
    def moments(self) -> int:
        """How many numbers the optimiser keeps for each trained weight."""
        return 2 if self.name == "adamw" else 1


@configuration
class TrainingSettings:
    """What a notebook's user may set. The defaults are the paper's where it says anything."""

    max_iter: Annotated[PositiveCount, Affects("length", where="can_be_longer")] = 5000
    """Training iterations."""
    images_per_batch: PositiveCount = 2
    """Images of one optimiser step, over all processes."""
    accumulate: PositiveCount = 1
    """Pieces in which a batch goes through the network, to save memory."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate."""
    optim: OptimConfig = OptimConfig()
    """Optimiser."""
    ema_decay: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, e.g. 0.999; 0: none."""
    augment: AugmentConfig = AugmentConfig()
    """Random views of the frames."""
    amp: Precision = "off"
    """Mixed precision: off, bf16 or fp16 (for GPUs without bf16)."""
    memory_format: Annotated[Literal["auto", "channels_last", "contiguous"], Affects("speed")] = "auto"
    """Memory format of the model's tensors: auto, channels_last or contiguous."""
    checkpoint_every: Annotated[Count, Affects("speed")] = 500
    """Iterations between checkpoints; 0: one at the end only."""
    workers: Annotated[Count, Affects("speed")] = 2
    """Processes that prepare images, for each GPU; 0: the training process prepares them."""
    seed: Int = 0
    """Everything random depends on this."""

    @property
    def can_be_longer(self) -> bool:
        """Whether more iterations would leave the learning rates of the first ones as they are."""
        return not self.schedule.needs_length

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


@configuration
class ValidatedSettings(TrainingSettings):
    """What may be set besides, where frames of several types train and other frames validate."""

    sampler: SamplerConfig = SamplerConfig()
    """How often each image is seen."""
    eval_every: Annotated[Count, Affects("evaluation")] = 0
    """Iterations between evaluations: the best one's weights are saved; 0: the last weights."""
    patience: Annotated[Count, Affects("evaluation")] = 0
    """Stop after so many evaluations without a better one; 0: never."""

    @property
    def keeps_last_weights(self) -> bool:
        """Whether no evaluation chooses among the weights of different iterations."""
        return not self.eval_every


@configuration
class TrainConfig(ValidatedSettings):
    """One training: the settings, and what the job itself reads and writes."""

    _: KW_ONLY
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
    model: ModelConfig = ModelConfig()
    """What the network is built from."""
    predict: Annotated[PredictConfig, Affects("after", where="keeps_last_weights")] = PredictConfig()
    """How the frames of an evaluation are predicted."""

    def __post_init__(self) -> None:
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ValueError(f"categories must be different names, at least one, not {list(self.categories)}")
        if self.model.num_classes != len(self.categories):
            raise ValueError(
                f"model.num_classes is {self.model.num_classes}, but there are {len(self.categories)} "
                f"categories ({', '.join(self.categories)}); make them agree"
            )


@configuration
class Phase:
    """What is different in one phase of a training; of a section, the keys that are given."""

    max_iter: PositiveCount | None = None
    """Training iterations of the phase."""
    schedule: Annotated[dict[str, Any], Part(ScheduleConfig)] = Field(default_factory=dict)
    """Learning rate, from the phase's first iteration on."""
    augment: Annotated[dict[str, Any], Part(AugmentConfig)] = Field(default_factory=dict)
    """Random views of the frames."""
    sampler: Annotated[dict[str, Any], Part(SamplerConfig)] = Field(default_factory=dict)
    """How often each image is seen."""

    def settings(self, common: ValidatedSettings, where: str = "") -> dict[str, Any]:
        """The settings that are different, by name, each whole.

        Args:
            common: the settings of all phases.
            where: the beginning of messages.

        Raises:
            KitError: a value that does not go together with the others.
        """
        found: dict[str, Any] = {} if self.max_iter is None else {"max_iter": self.max_iter}
        for name in ("schedule", "augment", "sampler"):
            if part := getattr(self, name):
                whole = getattr(common, name)
                values = configs.overlay(configs.to_dict(whole), configs.to_plain(part))
                found[name] = configs.from_dict(type(whole), values, f"{where}{name}")
        return found

    def within(self, config: TrainConfig) -> TrainConfig:
        """The training of this phase, where ``config`` is what all phases have in common."""
        return replace(config, **self.settings(config))


def in_phases(config: TrainConfig, phases: Sequence[Phase]) -> list[TrainConfig]:
    """What each phase of a training trains with; the training itself where there are none."""
    return [phase.within(config) for phase in phases] or [config]
