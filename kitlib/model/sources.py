"""Where weights come from: files and addresses, read without running any code that they may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from detectron2.checkpoint import catalog  # registers catalog:// addresses  # noqa: F401
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kitlib.errors import KitError

TIMM = "timm://"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the preset they were trained as where the file says so."""

    tensors: dict[str, Tensor]
    preset: str | None = None


def read(source: str) -> Checkpoint:
    """Read weights.

    Args:
        source: a ``.pth``, ``.pkl`` or ``.safetensors`` file; an address (``detectron2://``, ``catalog://``,
            ``https://``) whose file is downloaded once; or ``timm://NAME``, a timm model's published weights.

    Returns:
        The averaged weights ("ema") of a checkpoint that has them, else its "model" or "state_dict", else all
        its tensors. Caffe2's names, and its place for the background class, are turned into detectron2's.

    Raises:
        KitError: no such file, no connection, a file that is cut short, or one that holds more than weights.
    """
    if source.startswith(TIMM):
        return Checkpoint(_download_timm(source.removeprefix(TIMM)))
    path = _local(source)
    content = _read_file(path, source)
    if not isinstance(content, Mapping):
        raise KitError(f"{source} holds no weights by name; save a state_dict in it")
    config = content.get("model_config")
    tensors = _tensors(_state_dict(content))
    if not tensors:
        raise KitError(f"{source} holds no tensors; save a state_dict in it")
    if not any("." in name for name in tensors):
        tensors, _ = convert_c2_detectron_names(tensors)
    return Checkpoint(tensors, config.get("preset") if isinstance(config, Mapping) else None)


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
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl" and not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return ArrayUnpickler(file).load()
        return torch.load(path, map_location="cpu", weights_only=True)
    except CodeRefused as error:
        raise KitError(f"{source} is refused: loading it would run {error}; save only its weights") from error
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise KitError(
                f"{source} is refused: loading it would run code; save only its weights"
            ) from error
        raise _broken(source, error) from error
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, IndexError, SafetensorError) as error:
        raise _broken(source, error) from error


def _broken(source: str, error: Exception) -> KitError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return KitError(
        f"{source} cannot be read as weights ({reason}): cut short or of another kind; copy it again"
    )


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
            value = torch.from_numpy(value.copy())  # arrays out of a pickle may not be writable
        if isinstance(value, Tensor) and not str(name).endswith("_momentum"):
            tensors[str(name).removeprefix("module.")] = value
    return tensors


class CodeRefused(pickle.UnpicklingError):
    """A pickle asks for a function or class that arrays do not need; says which."""


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and the containers and scalars built into Python, and nothing that could run code."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # detectron2's and Caffe2's files were written by Python 2

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that numpy's own pickles name; raises ``CodeRefused`` for any other."""
        if (module, name) not in _SAFE:
            raise CodeRefused(f"{module}.{name}")
        return _SAFE[module, name]


_RECONSTRUCT, _SCALAR = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_SAFE: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 3 writes bytes for Python 2
    **{
        (f"numpy.{core}.{module}", function.__name__): function
        for core in ("core", "_core")
        for module, function in (
            ("multiarray", _RECONSTRUCT),
            ("multiarray", _SCALAR),
            ("numeric", _FROM_BUFFER),
        )
    },
}
