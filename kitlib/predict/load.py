"""Trained models from their checkpoints alone: each file says which model it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.architecture import build_model


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
    """Build the model that a checkpoint describes and fill it.

    Raises:
        KitError: as ``kitlib.model.checkpoint.load``, or the tensors are not those of the model described.
    """
    found = checkpoint.load(path)
    model = build_model(found.config)
    differences = checkpoint.differences(model.state_dict(), found.tensors)
    checkpoint.check_fit(str(path), found.config, found.config, differences, "train again")
    model.load_state_dict(found.tensors)
    return Loaded(model.to(device).eval(), found.categories)
