"""Reading weights by name from any source: our checkpoints, others' files, addresses, published weights.

``weights`` puts what this module reads into a model.
"""

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

_TIMM = "timm://"
# detectron2's published weights by preset, so that a configuration can say "imagenet" or "coco".
PUBLISHED: dict[str, dict[str, str]] = {
    "imagenet": {
        "r50": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
        "x152": "catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k",
    },
    "coco": {
        "r50": "detectron2://Misc/cascade_mask_rcnn_R_50_FPN_3x/144998488/model_final_480dd8.pkl",
        "x152": "detectron2://Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv/18131413/"
        "model_0039999_e76410.pkl",
    },
}


@dataclass(frozen=True)
class Weights:
    """Tensors by name.

    Attributes:
        config: of the model, as a checkpoint of ours says it; None for any other file.
    """

    tensors: dict[str, Tensor]
    config: ModelConfig | None = None


def published(config: ModelConfig, name: str) -> str:
    """The address of published weights for a model; a timm backbone has timm's under every name.

    Args:
        config: of the model.
        name: "imagenet" or "coco".

    Raises:
        KitError: there are none for the model's preset.
    """
    if backbone := config.architecture.backbone:
        return _TIMM + backbone
    if config.preset not in PUBLISHED[name]:
        known = ", ".join(PUBLISHED[name])
        raise KitError(f"no '{name}' weights exist for preset '{config.preset}', only for {known}")
    return PUBLISHED[name][config.preset]


def read(source: str) -> Weights:
    """Read weights.

    Args:
        source: a ``.pth``, ``.pkl`` or ``.safetensors`` file; an address (``detectron2://``, ``catalog://``,
            ``https://``) whose file is downloaded once; or ``timm://NAME``, a timm model's published weights.

    Returns:
        The tensors of a checkpoint of ours. Of any other file, those of its first section among "ema"
        (averaged weights), "model", "state_dict" and "blobs", else all its tensors; Caffe2's names, and its
        index of the background class, are converted to detectron2's.

    Raises:
        KitError: the file does not exist, cannot be downloaded, is cut short or damaged, or would run code.
    """
    if source.startswith(_TIMM):
        return Weights(_download_timm(source.removeprefix(_TIMM)))
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
            remedy = "check the address and the connection, or give a file's path"
            raise KitError(f"cannot download {source} ({error}); {remedy}") from error
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
    # The network libraries that timm uses raise errors of many types.
    except Exception as error:
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
    """The numeric arrays and tensors by name, without Caffe2's momenta and the prefix of data parallelism."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            # A copy, since unpickled arrays may be read-only, and in this machine's byte order.
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        if isinstance(value, Tensor) and not str(name).endswith("_momentum"):
            tensors[str(name).removeprefix("module.")] = value
    return tensors
