"""Checkpoints: the last and the one before it, each whole or not there at all."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kitlib import files
from kitlib.errors import KitError

State = dict[str, Any]

# What torch.load raises for a file that is cut short or damaged.
DAMAGED = (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError)


class Found(NamedTuple):
    """A checkpoint's state, and what the user should know about how it was found ("" if nothing)."""

    state: State | None
    note: str


def last(folder: Path | str) -> Path:
    """Where a training in ``folder`` keeps its last checkpoint."""
    return Path(folder) / "checkpoints" / "last.pth"


def previous(folder: Path | str) -> Path:
    """Where it keeps the one before."""
    return last(folder).with_name("previous.pth")


def exists(folder: Path | str) -> bool:
    """Whether a training in ``folder`` has a checkpoint, whole or not."""
    return last(folder).exists() or previous(folder).exists()


def save(folder: Path | str, state: State) -> None:
    """Make ``state`` the last checkpoint; what was the last becomes the previous one.

    Raises:
        KitError: the disk is full or the folder not writable; the checkpoints there are intact.
    """
    with files.atomic(last(folder)) as temporary:
        _write(state, temporary)
        if last(folder).exists():
            os.replace(last(folder), previous(folder))


def save_weights(path: Path | str, state: State) -> Path:
    """Write a weights file, for inference and for further training.

    Raises:
        KitError: the disk is full or the folder not writable; an earlier file there is intact.
    """
    with files.atomic(path) as temporary:
        _write(state, temporary)
    return Path(path)


def slim(source: Path | str, target: Path | str, half: bool = False) -> Path:
    """Write a copy of a weights file that holds what inference needs and no more.

    Args:
        half: floating-point tensors in 16 bits; a model takes them back in its own 32.

    Raises:
        KitError: the file cannot be read or does not say which model it is of, or the copy not be written.
    """
    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except DAMAGED as error:
        reason = str(error).splitlines()[0]
        raise KitError(f"{source} cannot be read as weights ({reason}); train again") from error
    if not isinstance(state, dict) or not {"model_config", "categories", "model"} <= state.keys():
        raise KitError(
            f"{source} does not say which model it is of; name a weights_*.pth that training wrote"
        )
    tensors = state.get("ema") or state["model"]
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    kept = {name: state[name] for name in ("model_config", "categories", "iteration") if name in state}
    return save_weights(target, {**kept, "model": tensors, "ema": None})


def load(folder: Path | str) -> Found:
    """The last checkpoint in a training's folder, on the CPU; the previous one where the last is damaged.

    Raises:
        KitError: there are checkpoints, but none is whole.
    """
    damaged = []
    for path in (last(folder), previous(folder)):
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except DAMAGED:
            damaged.append(path.name)
            continue
        note = f"{damaged[0]} is damaged or cut short: going on from {path.name}" if damaged else ""
        return Found(state, note)
    if damaged:
        raise KitError(
            f"no checkpoint in {last(folder).parent} can be read, {' and '.join(damaged)} are damaged or "
            f"cut short; copy them again, or remove {folder} to begin anew"
        )
    return Found(None, "")


def random_state(device: torch.device) -> State:
    """The state of this process's random generators, in types that load with ``weights_only=True``."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: State = {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: State, device: torch.device) -> None:
    """Go on from ``random_state``."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _write(state: State, path: Path) -> None:
    """torch.save, with a failed write as the OSError that it is."""
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # the archive writer's own, after the write below it failed
            cause = error.__cause__ or error.__context__
            raise (
                cause if isinstance(cause, OSError) else OSError(None, str(error).splitlines()[0])
            ) from error
