"""Where weights come from: files of any kind that is read, and addresses that are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import catalog  # registers catalog:// addresses  # noqa: F401
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kitlib.errors import KitError
from kitlib.model import checkpoint, pickles
from kitlib.model.presets import ModelConfig

TIMM = "timm://"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the model they are of where the file is one of ours; None for a foreign file."""

    tensors: dict[str, Tensor]
    made_of: ModelConfig | None = None


def read(source: str) -> Weights:
    """Read weights.

    Args:
        source: a ``.pth``, ``.pkl`` or ``.safetensors`` file; an address (``detectron2://``, ``catalog://``,
            ``https://``) whose file is downloaded once; or ``timm://NAME``, a timm model's published weights.

    Returns:
        The tensors of a file of ours. Of a foreign file the averaged weights ("ema") where it has them, else
        its "model" or "state_dict", else all its tensors. Caffe2's names, and its place for the background
        class, are turned into detectron2's.

    Raises:
        KitError: no such file, no connection, a file that is cut short, or one that would run code.
    """
    if source.startswith(TIMM):
        return Weights(_download_timm(source.removeprefix(TIMM)))
    path = _local(source)
    content = _read_file(path, source)
    if checkpoint.is_ours(content):
        ours = checkpoint.parse(content, source)
        return Weights(ours.tensors, ours.config)
    if not isinstance(content, Mapping):
        raise KitError(f"{source} holds no weights by name; save a state_dict in it")
    tensors = _tensors(_state_dict(content))
    if not tensors:
        raise KitError(f"{source} holds no tensors; save a state_dict in it")
    if not any("." in name for name in tensors):
        tensors, _ = convert_c2_detectron_names(tensors)
    return Weights(tensors)


def _local(source: str) -> Path:
    path = Path(source)
    if "://" in source:
        try:
            path = Path(PathManager.get_local_path(source))
        except (OSError, RuntimeError, KeyError) as error:
            mend = "check the address and the connection, or give a file's path"
            raise KitError(f"cannot download {source} ({error}); {mend}") from error
    if not path.is_file():
        raise KitError(f"weights {source} do not exist; give a file, an address or ''")
    return path


def _read_file(path: Path, source: str) -> Any:
    if path.suffix != ".safetensors":
        return pickles.read(path, source)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise pickles.explain(source, error) from error


def _download_timm(name: str) -> dict[str, Tensor]:
    import timm

    try:
        return timm.create_model(name, features_only=True, pretrained=True).state_dict()
    except Exception as error:  # whatever the network libraries below timm raise
        raise KitError(
            f"cannot get timm's weights of '{name}' ({error}); check the name and the connection, or give a "
            "file of its weights"
        ) from error


def _state_dict(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("ema", "model", "state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Numeric arrays and tensors by name, without a data-parallel wrapper's prefix or Caffe2's momenta."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            # A copy, because arrays out of a pickle may not be writable, in the byte order of this machine.
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        if isinstance(value, Tensor) and not str(name).endswith("_momentum"):
            tensors[str(name).removeprefix("module.")] = value
    return tensors
