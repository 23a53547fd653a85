"""What the notebooks would refuse, hours on: refused before the first of them runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from kitlib import config
from kitlib.data import cleaning
from kitlib.data.competition import CATEGORIES
from kitlib.errors import KitError, unknown
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.post.config import Kind, Way
from kitlib.predict.config import PredictConfig
from kitlib.predict.pseudo import PseudoConfig
from kitlib.train.config import OptimConfig, TrainConfig
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig

SECTIONS = {
    "augment": AugmentConfig,
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
    splits: tuple[Literal["train", "val", "test"], ...] = ("train",)
    few_cells: float = 0.1
    start_from: Literal["02_pretrain_livecell", "03_train"] = "03_train"
    fold: int = -1
    folds: int | None = None
    use_retrained: Literal["if better", "always"] = "if better"
    generation: int = 1
    finetune_iter: int = 0
    eval_every: int = 0
    patience: int = 0
    confidence: float = 0.8
    hours: float = 0.0

    def __post_init__(self) -> None:
        for name in ("score_kinds", "ways", "splits"):
            if not getattr(self, name):
                raise KitError(f"{name} must name at least one")
        if self.folds is not None and (self.folds < 2 or not -1 <= self.fold < self.folds):
            raise KitError(f"fold {self.fold} of {self.folds}: fold must be 0 to folds - 1, or -1 for all")
        if not 0 < self.confidence < 1:
            raise KitError(f"confidence must lie between 0 and 1, not {self.confidence}")
        if not 0 <= self.few_cells < 1:
            raise KitError(f"few_cells must be at least 0 and below 1, not {self.few_cells}")
        if self.generation < 1:
            raise KitError(f"generation must be at least 1, not {self.generation}")
        for name in ("hours", "finetune_iter", "patience"):
            if getattr(self, name) < 0:
                raise KitError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.patience and not self.eval_every:
            raise KitError(
                f"patience {self.patience} stops nothing while eval_every is 0; set both or neither"
            )


def check(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """See that all stages' parameters are what they may be, each for itself and beside the others.

    Raises:
        KitError: an unknown key or cell type (the nearest is named) or a value that makes no sense.
    """
    looks = stages.get("03_train", {}).get("predict_config", {})
    for stage, parameters in stages.items():
        if "predict_config" in parameters:  # of the later stages only what differs from 03's
            if stage == "06_submit" and "mask_threshold" in parameters["predict_config"]:
                raise KitError(
                    f"{stage}.predict_config: the tuned limits tell mask_threshold; give other limits"
                )
            parameters = {**parameters, "predict_config": {**looks, **parameters["predict_config"]}}
        _check_stage(stage, parameters)
    _check_folds(stages)
    _check_models(stages)


def check_alone(stage: str, parameters: Mapping[str, Any]) -> None:
    """See that one stage's parameters are what they may be, whatever those of the others.

    Raises:
        KitError: as ``check``.
    """
    _check_stage(stage, parameters)


def training(
    stage: str,
    parameters: Mapping[str, Any],
    categories: Sequence[str],
    model: Mapping[str, Any] | None = None,
    predict: Mapping[str, Any] | None = None,
    **rest: Any,
) -> TrainConfig:
    """The configuration of a stage's training.

    Args:
        stage: its name, for messages.
        parameters: the notebook's; those that ``TrainConfig`` has by the same name are taken as they are.
        categories: the classes in the model's order.
        model: what the model is built from; None: the parameters preset, mask_stages and model_options.
        predict: how frames are predicted, where the parameter predict_config says nothing.
        rest: further fields of ``TrainConfig``; they win over the parameters.

    Raises:
        KitError: a value that is not what it may be.
    """
    model = model or {
        "preset": parameters["preset"],
        "num_classes": len(categories),
        "mask_stages": parameters["mask_stages"],
        "options": parameters["model_options"],
    }
    predict = {**(predict or {}), **parameters.get("predict_config", {})}
    own = {"categories": list(categories), "model": model, "predict": predict, "train": ""}
    return config.from_dict(TrainConfig, {**_those(parameters, TrainConfig), **own, **rest}, stage)


def pseudo_labels(stage: str, parameters: Mapping[str, Any]) -> PseudoConfig:
    """The configuration of a stage that makes pseudo labels.

    Raises:
        KitError: a value that is not what it may be.
    """
    return config.from_dict(PseudoConfig, _pseudo_values(parameters), stage)


def _check_folds(stages: Mapping[str, Mapping[str, Any]]) -> None:
    first, again = (stages.get(name, {}).get("fold", -1) for name in ("03_train", "05_retrain"))
    if first >= 0 and again not in (-1, first):
        raise KitError(
            f"05_retrain.fold is {again}, but 03_train trains fold {first} alone; take that, or -1"
        )


def _check_models(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """That the weights of 02 fit the model of 03, which starts from them unless it names others."""
    one, other = (stages.get(name, {}) for name in ("02_pretrain_livecell", "03_train"))
    if other.get("weights") == "" and one.get("preset") != other.get("preset"):
        made = f"made of '{one['preset']}'; set both alike, or 03_train.weights"
        raise KitError(f"03_train.preset is '{other['preset']}', but it starts from 02's weights, {made}")


def _check_stage(stage: str, parameters: Mapping[str, Any]) -> None:
    for name, cls, values in _given(parameters):
        try:
            config.from_dict(cls, values)
        except KitError as error:
            raise KitError(f"{stage}{name and f'.{name}'}: {error}") from None
    known = list(inspect.signature(cleaning.clean).parameters)[1:]
    for key in parameters.get("cleaning", {}):
        if key not in known:
            raise KitError(f"{stage}.cleaning: {unknown('key', key, known)}")
    for name, table in _tables_by_type(parameters):
        for key in table:
            if key not in (*CATEGORIES, "default"):
                raise KitError(f"{stage}.{name}: {unknown('cell type', key, CATEGORIES)}")
    by_type = set(parameters.get("predict_config", {}).get("mask_threshold", {})) - {"default"}
    if by_type and "score_kinds" in parameters:
        raise KitError(
            f"{stage}.predict_config: the stage finds out mask_threshold by type "
            f"({', '.join(sorted(by_type))}); give what it may try as levels"
        )


def _tables_by_type(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parameters that hold a value for each cell type: a misspelt one would be of no type."""
    for section, name in (("augment", "scale_by_type"), ("predict_config", "scales_by_type")):
        yield f"{section}.{name}", parameters.get(section, {}).get(name, {})
    if "doubt" in parameters:
        for name in ("score", "agreement", "min_area", "max_area", "doubt"):
            yield name, parameters[name]


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
        yield "", PseudoConfig, _pseudo_values(parameters)
    yield "", Choices, _those(parameters, Choices)


def _pseudo_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``PseudoConfig`` that the parameters give."""
    post = {name: parameters[name] for name in ("score", "min_area", "max_area")}
    return {**_those(parameters, PseudoConfig), "post": post}


def _those(parameters: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The parameters that are fields of a class."""
    return {f.name: parameters[f.name] for f in fields(cls) if f.name in parameters}
