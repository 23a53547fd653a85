"""Trained models from their checkpoints alone: each file says which model it is of."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kitlib import config
from kitlib.errors import KitError
from kitlib.model import build, weights
from kitlib.model.presets import ModelConfig
from kitlib.model.progress import report_layers


class Loaded(NamedTuple):
    """A model in evaluation mode, and its class names in the order of its classes."""

    model: nn.Module
    categories: tuple[str, ...]


class Ensemble(NamedTuple):
    """Models in evaluation mode, and the class names of all, in the order of their classes."""

    models: tuple[nn.Module, ...]
    categories: tuple[str, ...]


def load_models(paths: Sequence[Path | str], device: str | torch.device = "cpu") -> Ensemble:
    """``load_model`` of one or many checkpoints of the same types of cell.

    Raises:
        KitError: as ``load_model``, or two files are of other types.
    """
    loaded = [load_model(path, device) for path in paths]
    first = loaded[0].categories
    for path, (_, categories) in zip(paths, loaded, strict=True):
        if categories != first:
            raise KitError(
                f"{paths[0]} knows the types {', '.join(first)} but {path} knows {', '.join(categories)}; "
                "an ensemble needs models of the same types in the same order"
            )
    return Ensemble(tuple(model for model, _ in loaded), first)


def load_model(path: Path | str, device: str | torch.device = "cpu") -> Loaded:
    """Build the model that a checkpoint of ``kitlib.train`` describes and fill it, with the averaged weights
    if it has any.

    Raises:
        KitError: the file is missing, damaged, holds more than weights, or does not say or fill its model.
    """
    described = _read(Path(path))
    settings = config.from_dict(ModelConfig, described["model_config"], f"{path}: model_config")
    categories = tuple(described["categories"])
    if len(categories) != settings.num_classes:
        raise KitError(
            f"{path} names {len(categories)} categories for {settings.num_classes} classes; train again"
        )
    model = build(settings.preset, settings.num_classes, settings.mask_stages, **settings.options)
    report = weights.load(model, str(path), replicate_classes=False)
    lacking = [*report.missing, *(m.name for m in report.mismatched)]
    if lacking:
        raise KitError(
            f"{path} lacks {len(lacking)} of its model's tensors, {lacking[0]} among them; train again"
        )
    report_layers(model)
    return Loaded(model.to(device).eval(), categories)


def _read(path: Path) -> dict[str, Any]:
    """All but the tensors, which are mapped and not read."""
    if not path.is_file():
        raise KitError(f"{path} does not exist; train first, or name another checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise KitError(
            f"{path} cannot be read as a checkpoint ({reason}); copy it again, or train again"
        ) from error
    if not isinstance(content, dict) or not {"model_config", "categories"} <= content.keys():
        raise KitError(f"{path} does not say which model it is of; name a weights_*.pth that training wrote")
    return content
