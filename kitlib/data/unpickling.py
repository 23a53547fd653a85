"""Unpickling numpy arrays and Python's own containers, and nothing that could run code."""

from __future__ import annotations

import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

_Order = Literal["C", "F"]


def check_opcodes(data: bytes) -> None:
    """Refuse a pickle whose numbers would make Python reserve more memory than the pickle has bytes.

    Raises:
        ValueError: it does, or it is cut short.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if isinstance(argument, int) and "PUT" in opcode.name and argument > len(data):
            raise ValueError("a damaged number of an object")


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and Python's own containers and scalars, and refuses what could run code."""

    def __init__(self, file: BinaryIO) -> None:
        # Python 2 wrote the files of detectron2 and Caffe2; it stored the bytes of arrays as text.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name in numpy's pickles; UnpicklingError for any other name."""
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {full_name} is not allowed")
        return _ALLOWED[full_name]


class _DType:
    """Stands in for ``numpy.dtype``, whose ``__setstate__`` trusts the file.

    A file can declare the bytes of an array to be references to Python objects, and numpy then follows them
    as pointers.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biufcSUMmO]\d*", code):
            raise ValueError(f"numpy arrays of type {code[:20]!r} are not read")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; the rest of the state is for types with fields."""
        self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state numpy's constructor checks before numpy's ``__setstate__`` takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        order: _Order = "F" if by_columns else "C"
        if dtype.value.hasobject:
            array = np.fromiter(data, object, len(data)).reshape(shape, order=order)
        else:
            array = _filled(shape, dtype, data, order)
        checked: Any = array.__reduce__()[2]
        super().__setstate__(checked)


def _filled(shape: tuple[int, ...], dtype: _DType, data: Any, order: _Order) -> NDArray[Any]:
    """An array of a file's bytes; numpy raises an error if they are too few or the type is object."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.ndarray(shape, dtype.value, raw, order=order)


def _empty(*_: Any) -> _Array:
    """Stands in for ``_reconstruct``: makes the array that ``__setstate__`` fills."""
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(dtype: _DType, data: Any) -> Any:
    return _filled((), dtype, data, "C")[()]


def _from_buffer(data: Any, dtype: _DType, shape: tuple[int, ...], order: _Order) -> NDArray[Any]:
    return _filled(shape, dtype, data, order)


def _no_bytes() -> bytes:
    """How Python 3 writes ``b""`` for Python 2."""
    return b""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes other bytes for Python 2."""
    return text.encode("latin1")


# The names in numpy's pickles, and their stand-ins.
NUMPY: dict[str, Callable[..., Any]] = {
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
_ALLOWED = {**NUMPY, "collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}
