"""Pickled weights, of ``torch.save`` or of numpy arrays, read without running code that they may hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from kitlib.errors import KitError


class Unreadable(KitError):
    """A file of weights that is cut short, damaged or of another kind."""


def read(path: Path, source: str = "", mmap: bool = True) -> Any:
    """All that a file of weights holds, with its tensors on the CPU.

    Args:
        path: a file of ``torch.save``, or a ``.pkl`` of numpy arrays such as detectron2 publishes.
        source: what to call the file in messages, its path by default.
        mmap: leave the tensors of ``torch.save`` on the disk until they are used.

    Raises:
        Unreadable: the file is cut short, damaged or of another kind.
        KitError: loading the file would run code that it names.
    """
    try:
        if path.suffix == ".pkl" and not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return _ArrayUnpickler(file).load()
        allowed = [(stand_in, name) for name, stand_in in _NUMPY.items()]
        with torch.serialization.safe_globals(allowed):
            mapped = mmap and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # A damaged file makes torch and pickle raise errors of any kind.
    except Exception as error:
        raise explain(source or str(path), error) from error


def explain(source: str, error: Exception) -> KitError:
    """The error for a file that could not be read: refused for code, or damaged."""
    named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named:
        return KitError(f"{source} is refused: loading it would run {named[1][:80]}; save only its weights")
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return Unreadable(
        f"{source} cannot be read as weights ({reason.splitlines()[0][:80]}): cut short or of another kind; "
        "copy it again"
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and the containers and scalars built into Python, and nothing that could run code."""

    def __init__(self, file: BinaryIO) -> None:
        # Python 2 wrote detectron2's and Caffe2's files, with the bytes of arrays as text.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-ins for what numpy's own pickles name; UnpicklingError for anything else."""
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {full_name} is not allowed")
        return _ALLOWED[full_name]


class _DType:
    """Stands in for ``numpy.dtype``, whose own ``__setstate__`` trusts what a file says about memory.

    A file can call a type's bytes references to Python's objects, and numpy then follows them as pointers.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biufcSUMmO]\d*", code):
            raise ValueError(f"numpy arrays of type {code[:20]!r} are not read")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Of the state, only the byte order matters for types without fields."""
        self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is checked by numpy's constructor before numpy's ``__setstate__`` takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        order = "F" if by_columns else "C"
        if dtype.value.hasobject:
            array = np.fromiter(data, object, len(data)).reshape(shape, order=order)
        else:
            array = _filled(shape, dtype, data, order)
        super().__setstate__(array.__reduce__()[2])


def _filled(shape: tuple[int, ...], dtype: _DType, data: Any, order: str) -> NDArray[Any]:
    """An array of a file's bytes; numpy raises an error where they are too few, or the type is object."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.ndarray(shape, dtype.value, raw, order=order)


def _empty(*_: Any) -> _Array:
    """Stands in for ``_reconstruct``, which makes the array that ``__setstate__`` then fills."""
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(dtype: _DType, data: Any) -> Any:
    return _filled((), dtype, data, "C")[()]


def _from_buffer(data: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return _filled(shape, dtype, data, order)


def _no_bytes() -> bytes:
    """How Python 3 writes ``b""`` for Python 2."""
    return b""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes other bytes for Python 2."""
    return text.encode("latin1")


# What numpy's own pickles name, and what stands in for it.
_NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _empty),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}
_ALLOWED = {**_NUMPY, "collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}
