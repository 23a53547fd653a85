"""Cellpose's ``*_seg.npy`` files, read without running code that a file may contain."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kitlib.data.config import DEFAULTS, ReadingConfig
from kitlib.data.labels import whole_numbers
from kitlib.data.unpickling import ArrayUnpickler, check_opcodes
from kitlib.errors import KitError


def read_seg(path: Path, reading: ReadingConfig = DEFAULTS) -> NDArray[np.integer]:
    """The label image, (H, W) integers, that a ``*_seg.npy`` file holds as its ``masks``.

    Args:
        path: the file: a pickled dictionary.
        reading: its ``plane`` is taken of masks of several planes.

    Raises:
        KitError: the file holds anything but arrays and Python's own containers, is damaged, or has no masks.
    """
    try:
        content = _unpickled(path.read_bytes())
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    # Damaged bytes make pickle and numpy raise errors of any kind.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and str(error).startswith("GLOBAL"):
            raise KitError(
                f"{path} is refused: loading it would run {str(error).split()[1][:80]}; "
                "save the masks as PNG or TIFF"
            ) from error
        raise KitError(
            f"{path} cannot be read ({str(error)[:80] or type(error).__name__}); save it in Cellpose again"
        ) from error
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, np.ndarray):
        raise KitError(f"{path} holds no array of masks; save it in Cellpose again")
    masks = np.asarray(masks).squeeze() if masks.ndim > 2 else np.asarray(masks)
    if masks.ndim == 3 and reading.plane is not None and reading.plane < len(masks):
        masks = masks[reading.plane]
    if masks.ndim == 3:
        raise KitError(f"{path} holds masks of {len(masks)} planes; choose one with plane")
    return whole_numbers(masks, path)


def _unpickled(data: bytes) -> Any:
    """What ``numpy.save`` wrote: an array, or the one object in an array of objects."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if not dtype.hasobject:
        raise ValueError("it holds no dictionary")
    if shape != ():
        raise ValueError("it holds several objects")
    rest = data[file.tell() :]
    check_opcodes(rest)
    outer = ArrayUnpickler(io.BytesIO(rest)).load()
    return outer.item() if isinstance(outer, np.ndarray) and outer.shape == () else outer
