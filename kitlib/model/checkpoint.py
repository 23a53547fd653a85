"""The file format of our own weights and training checkpoints; only this module reads and writes it.

A file is what ``torch.save`` makes of a dict: ``format``, ``model_config``, ``categories``, ``iteration``,
``map``, ``model`` (the tensors) and ``training`` (None in a file for inference).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kitlib import config as configs
from kitlib import files
from kitlib.errors import KitError
from kitlib.model import pickles
from kitlib.model.presets import ModelConfig

FORMAT = 1
_REQUIRED = {"model_config", "categories", "model"}


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights, and which model they are of.

    Attributes:
        config: what the model was built from.
        categories: names of the classes, in the order of the model's.
        iteration: how long the weights were trained.
        tensors: the model's ``state_dict``; the averaged weights where the training averages them.
        map: the validation score of the weights; None where they were not evaluated.
        training: what a training needs to be resumed from here; None in a file for inference.
    """

    config: ModelConfig
    categories: tuple[str, ...]
    iteration: int
    tensors: dict[str, Tensor]
    map: float | None = None
    training: dict[str, Any] | None = None

    def slim(self) -> Checkpoint:
        """What inference needs and no more."""
        return replace(self, training=None)

    def half(self) -> Checkpoint:
        """With tensors in 16 bits, which a model takes back in its own 32, except those that overflow."""
        return replace(self, tensors={name: _half(tensor) for name, tensor in self.tensors.items()})


def _half(tensor: Tensor) -> Tensor:
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if bool(half.isfinite().all()) else tensor


def save(path: Path | str, checkpoint: Checkpoint, previous: Path | None = None) -> Path:
    """Write a checkpoint atomically.

    Args:
        path: the file to write.
        checkpoint: what to write.
        previous: where an earlier file at ``path`` is moved; by default it is replaced.

    Raises:
        KitError: the disk is full or the folder not writable; an earlier file there is intact.
    """
    content = {
        "format": FORMAT,
        "model_config": configs.to_dict(checkpoint.config),
        "categories": list(checkpoint.categories),
        "iteration": checkpoint.iteration,
        "map": checkpoint.map,
        "model": checkpoint.tensors,
        "training": checkpoint.training,
    }
    with files.atomic(path) as temporary:
        _write(content, temporary)
        if previous and Path(path).exists():
            os.replace(path, previous)
    return Path(path)


def load(path: Path | str, mmap: bool = True) -> Checkpoint:
    """Read a checkpoint, with its tensors on the CPU.

    Args:
        path: a file that ``save`` wrote, in this version of the kit or an earlier one.
        mmap: leave the tensors on the disk until they are copied into a model.

    Raises:
        Unreadable: the file is cut short or damaged.
        KitError: the file is missing, would run code, is not one of ours, or was written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise KitError(f"{path} does not exist; train first, or name another checkpoint")
    content = pickles.read(path, mmap=mmap)
    if not is_ours(content):
        raise KitError(f"{path} does not say which model it is of; name a weights_*.pth that training wrote")
    return parse(content, str(path))


def is_ours(content: Any) -> bool:
    """Whether a file with this content is one that this module wrote."""
    ours = isinstance(content, Mapping) and content.keys() >= _REQUIRED
    return ours and isinstance(content["model"], Mapping)


def parse(content: Mapping[str, Any], source: str) -> Checkpoint:
    """The record in a file's content.

    Raises:
        KitError: a newer version wrote the file, or its parts contradict each other.
    """
    if content.get("format", 0) not in range(FORMAT + 1):
        raise KitError(
            f"{source} is in format {content['format']} of a newer kitlib, and this one reads formats up to "
            f"{FORMAT}; update kitlib"
        )
    if "format" not in content:
        content = _upgrade(content)
    config = configs.from_dict(ModelConfig, content["model_config"], f"{source}: model_config")
    categories = tuple(content["categories"])
    if len(categories) != config.num_classes:
        raise KitError(
            f"{source} names {len(categories)} categories for {config.num_classes} classes; train again"
        )
    optional = {name: content.get(name) for name in ("map", "training")}
    return Checkpoint(config, categories, content.get("iteration", 0), content["model"], **optional)


def _upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file without a format, as kitlib wrote it first, in format 1.

    There the averaged weights were ``ema``, and what a training is resumed from lay beside the tensors.
    """
    training = dict(content) if "step" in content else None
    return {**content, "model": content.get("ema") or content["model"], "training": training}


def check_fit(
    source: str, made_of: ModelConfig, here: ModelConfig, differences: list[str], mend: str
) -> None:
    """KitError that names what differs between a file of ours and the model that it is to fill.

    Args:
        source: the file.
        made_of: the model that the file names as its own.
        here: the model to fill.
        differences: from ``differences``; nothing is raised where the list is empty.
        mend: what the user should do.

    Raises:
        KitError: there are differences.
    """
    if differences:
        model = "that model" if made_of == here else _named(here)
        raise KitError(
            f"{source} names {_named(made_of)} as its model and does not fit {model} "
            f"({'; '.join(differences)}); {mend}"
        )


def _named(config: ModelConfig) -> str:
    text = f"preset '{config.preset}' with num_classes {config.num_classes}, mask_stages {config.mask_stages}"
    return text + (f", options {str(config.options)[:80]}" if config.options else "")


def differences(here: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors of a file from being those of a model, in words; empty where nothing does."""
    reshaped = [
        f"{name}, {tuple(file[name].shape)} in place of {tuple(tensor.shape)}"
        for name, tensor in here.items()
        if name in file and file[name].shape != tensor.shape
    ]
    kinds = {
        "missing from the file": [name for name in here if name not in file],
        "unknown to the model": [name for name in file if name not in here],
        "of another shape": reshaped,
    }
    return [f"{kind}: {_first(names)}" for kind, names in kinds.items() if names]


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _write(content: dict[str, Any], path: Path) -> None:
    """torch.save, with a failed write as the OSError that it is."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        # The archive writer raises an error of its own after the write below it failed.
        except RuntimeError as error:
            cause = error.__cause__ or error.__context__
            raise (
                cause if isinstance(cause, OSError) else OSError(None, str(error).splitlines()[0])
            ) from error
