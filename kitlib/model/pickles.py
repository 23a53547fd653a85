"""Reading pickled files, of ``torch.save`` or of numpy arrays, without running code that a file may contain.

``checkpoint`` reads files of our own through this module, ``sources`` those of others.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kitlib.data.unpickling import NUMPY, ArrayUnpickler
from kitlib.errors import KitError


class Unreadable(KitError):
    """The file is cut short, damaged or no file of weights."""


def read(path: Path, source: str = "", mmap: bool = True) -> Any:
    """The content of a file of weights, with its tensors on the CPU.

    Args:
        path: a file of ``torch.save``, or a ``.pkl`` of numpy arrays such as detectron2 publishes.
        source: the file's name in error messages, by default its path.
        mmap: leave the tensors of ``torch.save`` on the disk until they are used.

    Raises:
        Unreadable: the file is cut short, damaged or no file of weights.
        KitError: loading the file would run code that it names.
    """
    try:
        if path.suffix == ".pkl" and not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return ArrayUnpickler(file).load()
        allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
        allowed = [(stand_in, name) for name, stand_in in NUMPY.items()]
        with torch.serialization.safe_globals(allowed):
            mapped = mmap and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # A damaged file makes torch and pickle raise errors of any kind.
    except Exception as error:
        raise explain(source or str(path), error) from error


def explain(source: str, error: Exception) -> KitError:
    """The error to raise for a file after reading it failed: it would run code, or it is damaged."""
    named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named:
        return KitError(f"{source} is refused: loading it would run {named[1][:80]}; save only its weights")
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return Unreadable(
        f"{source} cannot be read as weights ({reason.splitlines()[0][:80]}): cut short or no file of "
        "weights; copy it again"
    )
