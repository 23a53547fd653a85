"""What the notebooks would refuse, hours on: refused before the first of them runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from kitlib import config
from kitlib.data import cleaning
from kitlib.errors import KitError, unknown
from kitlib.model.augment import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.post.rescore import Kind
from kitlib.post.validate import Way
from kitlib.predict.config import PredictConfig
from kitlib.predict.pseudo import PseudoConfig
from kitlib.train.config import AverageConfig, OptimConfig, TrainConfig
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig

SECTIONS = {
    "augment": AugmentConfig,
    "average": AverageConfig,
    "optim": OptimConfig,
    "predict_config": PredictConfig,
    "sampler": SamplerConfig,
    "schedule": ScheduleConfig,
}


@dataclass(frozen=True)
class Choices:
    """Parameters that are no section, and what they may be."""

    score_kinds: tuple[Kind, ...] = ("box",)
    ways: tuple[Way, ...] = ("limits by type",)
    start_from: Literal["02_pretrain_livecell", "03_train"] = "03_train"
    fold: int = -1
    folds: int | None = None
    generation: int = 1
    confidence: float = 0.8
    hours: float = 0.0

    def __post_init__(self) -> None:
        for name in ("score_kinds", "ways"):
            if not getattr(self, name):
                raise KitError(f"{name} must name at least one")
        if self.folds is not None and (self.folds < 2 or not -1 <= self.fold < self.folds):
            raise KitError(f"fold {self.fold} of {self.folds}: fold must be 0 to folds - 1, or -1 for all")
        if not 0 < self.confidence < 1:
            raise KitError(f"confidence must lie between 0 and 1, not {self.confidence}")
        if self.generation < 1:
            raise KitError(f"generation must be at least 1, not {self.generation}")
        if self.hours < 0:
            raise KitError(f"hours must not be negative, but is {self.hours}")


def check(stage: str, parameters: Mapping[str, Any]) -> None:
    """See that a stage's parameters are what they may be, each for itself.

    Raises:
        KitError: an unknown key (the nearest is named) or a value that makes no sense.
    """
    for name, cls, values in _given(parameters):
        try:
            config.from_dict(cls, values)
        except KitError as error:
            raise KitError(f"{stage}{name and f'.{name}'}: {error}") from None
    known = list(inspect.signature(cleaning.clean).parameters)[1:]
    for key in parameters.get("cleaning", {}):
        if key not in known:
            raise KitError(f"{stage}.cleaning: {unknown('key', key, known)}")
    by_type = set(parameters.get("predict_config", {}).get("mask_threshold", {})) - {"default"}
    if by_type and "score_kinds" in parameters:
        raise KitError(
            f"{stage}.predict_config: the stage finds out mask_threshold by type "
            f"({', '.join(sorted(by_type))}); give what it may try as levels"
        )


def _given(parameters: Mapping[str, Any]) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """The parameters in groups: a name, the class that takes the group, and its values."""
    for name, cls in SECTIONS.items():
        if name in parameters:
            yield name, cls, parameters[name]
    if "model_options" in parameters:
        options = {"options": parameters["model_options"]}
        yield "model_options", ModelConfig, _those(parameters, ModelConfig) | options
    if "max_iter" in parameters:
        not_yet = {"out": "", "train": "", "weights": "", "categories": ["cell"], "model": {"num_classes": 1}}
        yield "", TrainConfig, _those(parameters, TrainConfig) | not_yet
    if "doubt" in parameters:
        post = {name: parameters[name] for name in ("score", "min_area", "max_area")}
        yield "", PseudoConfig, _those(parameters, PseudoConfig) | {"post": post}
    yield "", Choices, _those(parameters, Choices)


def _those(parameters: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The parameters that are fields of a class."""
    return {f.name: parameters[f.name] for f in fields(cls) if f.name in parameters}
