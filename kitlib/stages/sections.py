"""Parameters that are sections of a configuration: checked before the first notebook runs, not hours on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from kitlib import config
from kitlib.errors import KitError

#: What takes each of them. Imported only when a run is planned, and none brings torch: a run starts in less
#: time than that takes to import. The sections of the optimiser are met by the first training.
SECTIONS = {
    "augment": ("kitlib.model.augment", "AugmentConfig"),
    "predict_config": ("kitlib.predict.config", "PredictConfig"),
}
MODEL = ("kitlib.model.presets", "ModelConfig")


def check(stage: str, parameters: Mapping[str, Any]) -> None:
    """See that a stage's sections hold what they may.

    Raises:
        KitError: an unknown key (the nearest is named) or a value that makes no sense.
    """
    for name in SECTIONS.keys() & parameters.keys():
        _build(f"{stage}.{name}", SECTIONS[name], parameters[name])
    if "model_options" in parameters:
        model = {"preset": parameters["preset"], "options": parameters["model_options"]}
        _build(f"{stage}.model_options", MODEL, model)


def _build(name: str, place: tuple[str, str], values: Mapping[str, Any]) -> None:
    module, cls = place
    try:
        config.from_dict(getattr(import_module(module), cls), dict(values))
    except KitError as error:
        raise KitError(f"{name}: {error}") from None
