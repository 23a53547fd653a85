"""The file format of our own weights and training checkpoints; no other module knows it.

A file is ``torch.save`` of a dict: ``format``, ``model_config``, ``categories``, ``iteration``, ``map``,
``model`` (the tensors) and ``training`` (None in a file for inference).
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

_FORMAT = 1
_REQUIRED = {"model_config", "categories", "model"}


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights, and what the model was built from.

    Attributes:
        config: what the model was built from.
        categories: cell types in the order of the model's classes.
        iteration: after which the weights were saved.
        tensors: the model's ``state_dict``; the averaged weights if the training averages them.
        map: the validation score of the weights; None if they were not evaluated.
        training: what is needed to resume the training; None in a file for inference.
    """

    config: ModelConfig
    categories: tuple[str, ...]
    iteration: int
    tensors: dict[str, Tensor]
    map: float | None = None
    training: dict[str, Any] | None = None

    def slim(self) -> Checkpoint:
        """Without what only a resumed training needs."""
        return replace(self, training=None)

    def half(self) -> Checkpoint:
        """With tensors in 16 bits, except those that would overflow; a model loads them as 32 bits."""
        return replace(self, tensors={name: _half(tensor) for name, tensor in self.tensors.items()})


def _half(tensor: Tensor) -> Tensor:
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if bool(half.isfinite().all()) else tensor


def save(path: Path | str, checkpoint: Checkpoint, previous: Path | None = None) -> Path:
    """Write a checkpoint atomically.

    Args:
        path: the file to write.
        checkpoint: what to write.
        previous: the path to which an existing file at ``path`` is moved; None to overwrite it.

    Raises:
        KitError: the disk is full or the folder is not writable; an existing file at ``path`` is intact.
    """
    content = {
        "format": _FORMAT,
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
        KitError: the file is missing, would run code, was not written by ``save``, or was written by a newer
            version.
    """
    path = Path(path)
    if not path.is_file():
        raise KitError(f"{path} does not exist; train first, or name another checkpoint")
    content = pickles.read(path, mmap=mmap)
    if not is_ours(content):
        raise KitError(f"{path} does not say which model it is of; name a weights_*.pth that training wrote")
    return parse(content, str(path))


def is_ours(content: Any) -> bool:
    """Whether ``save`` wrote the file with this content."""
    ours = isinstance(content, Mapping) and content.keys() >= _REQUIRED
    return ours and isinstance(content["model"], Mapping)


def parse(content: Mapping[str, Any], source: str) -> Checkpoint:
    """The checkpoint in a file's content, for which ``is_ours`` is true.

    Raises:
        KitError: a newer version wrote the file, or its parts contradict each other.
    """
    if content.get("format", 0) not in range(_FORMAT + 1):
        raise KitError(
            f"{source} is in format {content['format']} of a newer kitlib, and this one reads formats up to "
            f"{_FORMAT}; update kitlib"
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
    """In format 1, the content of a file of kitlib's first format, which has no number.

    In the first format, ``ema`` holds the averaged weights, and the state of the training lies beside the
    tensors.
    """
    training = dict(content) if "step" in content else None
    return {**content, "model": content.get("ema") or content["model"], "training": training}


def check_fit(
    source: str, of_file: ModelConfig, of_model: ModelConfig, differences: list[str], remedy: str
) -> None:
    """Raise an error if a file of ours does not fit the model that is to load it.

    Args:
        source: the file's name in the message.
        of_file: the configuration in the file.
        of_model: the configuration of the model.
        differences: between their tensors, from ``differences``.
        remedy: what the user should do.

    Raises:
        KitError: there are differences.
    """
    if differences:
        model = "that model" if of_file == of_model else _named(of_model)
        raise KitError(
            f"{source} names {_named(of_file)} as its model and does not fit {model} "
            f"({'; '.join(differences)}); {remedy}"
        )


def _named(config: ModelConfig) -> str:
    text = f"preset '{config.preset}' with num_classes {config.num_classes}, mask_stages {config.mask_stages}"
    return text + (f", options {str(config.options)[:80]}" if config.options else "")


def differences(of_model: Mapping[str, Tensor], of_file: Mapping[str, Tensor]) -> list[str]:
    """The differences in names and shapes between the tensors of a model and of a file, in words."""
    reshaped = [
        f"{name}, {tuple(of_file[name].shape)} in place of {tuple(tensor.shape)}"
        for name, tensor in of_model.items()
        if name in of_file and of_file[name].shape != tensor.shape
    ]
    found = {
        "missing from the file": [name for name in of_model if name not in of_file],
        "unknown to the model": [name for name in of_file if name not in of_model],
        "of another shape": reshaped,
    }
    return [f"{difference}: {_first(names)}" for difference, names in found.items() if names]


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _write(content: dict[str, Any], path: Path) -> None:
    """``torch.save`` that raises the OSError of a failed write."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        # torch raises a RuntimeError of its own while it handles the OSError of the write.
        except RuntimeError as error:
            cause = error.__cause__ or error.__context__
            reason = cause if isinstance(cause, OSError) else OSError(None, str(error).splitlines()[0])
            raise reason from error
