"""Parameters that are sections of a configuration: checked before the first notebook runs, not hours on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kitlib import config
from kitlib.errors import KitError
from kitlib.model.augment import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.predict.config import PredictConfig
from kitlib.train.config import AverageConfig, OptimConfig
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


def check(stage: str, parameters: Mapping[str, Any]) -> None:
    """See that a stage's sections hold what they may.

    Raises:
        KitError: an unknown key (the nearest is named) or a value that makes no sense.
    """
    given = {name: (cls, parameters[name]) for name, cls in SECTIONS.items() if name in parameters}
    if "model_options" in parameters:
        model = {"preset": parameters["preset"], "options": parameters["model_options"]}
        given["model_options"] = ModelConfig, model
    for name, (cls, values) in given.items():
        try:
            config.from_dict(cls, values)
        except KitError as error:
            raise KitError(f"{stage}.{name}: {error}") from None
