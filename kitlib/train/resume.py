"""Resuming a training: its last two checkpoints, its random generators, and whether it is the same one."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kitlib import config as configs
from kitlib import files
from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.checkpoint import Checkpoint
from kitlib.model.pickles import Unreadable
from kitlib.records import Frame
from kitlib.train.config import TrainConfig

# May change between the parts of one training.
_HARMLESS = configs.affecting(TrainConfig, "place", "speed", "watching")


def data_fingerprint(train: Sequence[Frame], val: Sequence[Frame]) -> str:
    """A short hash of the frames' ids, sizes, cells and weights, and of how large their images are as files.

    Where the images lie does not count, so that a data folder may move between the parts of a training.
    """
    parts = []
    for frame in (*train, None, *val):
        if frame is not None:
            size = frame.path.stat().st_size if frame.path is not None and frame.path.exists() else 0
            cells = " ".join(f"{c.category} {c.mask['counts'].decode()}" for c in frame.cells)
            parts.append(
                f"{frame.id} {frame.height} {frame.width} {frame.category} {frame.weight} {size} {cells}"
            )
        else:
            parts.append("val")
    return files.fingerprint(*parts)


def check(state: dict[str, Any], config: TrainConfig, data: str) -> None:
    """See that a checkpoint was made by this training.

    Args:
        state: what the checkpoint holds of the training.
        config: of the training that goes on.
        data: fingerprint of its frames.

    Raises:
        KitError: what differs in the configuration or the data, and what to do.
    """
    changes = differences(state["config"], configs.to_dict(config), _harmless(config))
    if state["data"] != data:
        changes.append("the frames (their ids, masks or images)")
    if changes:
        raise KitError(
            f"{config.out} holds a training that was begun otherwise; changed since: {'; '.join(changes)}. "
            f"Undo that, give another out, or remove {config.out} to begin anew"
        )


def differences(old: dict[str, Any], new: dict[str, Any], harmless: Collection[str] = ()) -> list[str]:
    """What changed between two nested configurations, as "key: old -> new".

    Args:
        old: as dictionaries.
        new: likewise.
        harmless: keys of the first level that do not count.
    """
    changes = []
    for key in [*old, *(k for k in new if k not in old)]:
        was, now = old.get(key), new.get(key)
        if key in harmless or was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            changes += [f"{key}.{change}" for change in differences(was, now)]
        else:
            changes.append(f"{key}: {was!r} -> {now!r}")
    return changes


def _harmless(config: TrainConfig) -> set[str]:
    """A training may also be made longer, where that does not change the part that is done, and predict in
    another way, where that does not decide which weights are saved."""
    harmless = set(_HARMLESS)
    if not config.schedule.needs_length:
        harmless.add("max_iter")
    if not config.eval_every:
        harmless.add("predict")
    return harmless


class Found(NamedTuple):
    """A checkpoint, and what the user should know about how it was found ("" if nothing)."""

    checkpoint: Checkpoint | None
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


def save(folder: Path | str, reached: Checkpoint) -> None:
    """Make ``reached`` the last checkpoint; what was the last becomes the previous one.

    Raises:
        KitError: the disk is full or the folder not writable; the checkpoints there are intact.
    """
    checkpoint.save(last(folder), reached, previous=previous(folder))


def load(folder: Path | str) -> Found:
    """The last checkpoint in a training's folder, on the CPU; the previous one where the last is damaged.

    Raises:
        KitError: there are checkpoints, but none is whole; or one is no checkpoint of a training.
    """
    damaged = []
    for path in (last(folder), previous(folder)):
        if not path.exists():
            continue
        try:
            # Read into memory: what the optimiser takes over would keep a mapped file open.
            found = checkpoint.load(path, mmap=False)
        except Unreadable:
            damaged.append(path.name)
            continue
        if found.training is None:
            raise KitError(f"{path} holds weights and no training to resume; remove {folder} to begin anew")
        note = f"{damaged[0]} is damaged or cut short: going on from {path.name}" if damaged else ""
        return Found(found, note)
    if damaged:
        raise KitError(
            f"no checkpoint in {last(folder).parent} can be read, {' and '.join(damaged)} are damaged or "
            f"cut short; copy them again, or remove {folder} to begin anew"
        )
    return Found(None, "")


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of this process's random generators, in types that load with ``weights_only=True``."""
    numpy = np.random.get_state(legacy=False)
    kind, generator = numpy["bit_generator"], numpy["state"]
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, generator["key"].tolist(), generator["pos"], numpy["has_gauss"], numpy["gauss"]),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on from ``random_state``."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
