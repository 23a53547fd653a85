"""Whether a checkpoint belongs to the training that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kitlib import config as configs
from kitlib import files
from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.train.config import TrainConfig

# May change between the parts of one training.
HARMLESS = configs.affecting(TrainConfig, "place", "speed", "watching")


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

    Raises:
        KitError: what differs in the configuration or the data, and the mend.
    """
    changes = differences(state["config"], configs.to_dict(config), _harmless(config))
    if state["data"] != data:
        changes.append("the frames (their ids, masks or images)")
    if changes:
        raise KitError(
            f"{config.out} holds a training that was begun otherwise; changed since: {'; '.join(changes)}. "
            f"Undo that, give another out, or remove {config.out} to begin anew"
        )


def differences(old: dict[str, Any], new: dict[str, Any], harmless: set[str] = frozenset()) -> list[str]:
    """What changed between two nested configurations, as "key: old -> new".

    Args:
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
    another way, where that has no say in which weights are kept."""
    harmless = set(HARMLESS)
    if not (config.schedule.needs_length or config.average.kind == "swa"):
        harmless.add("max_iter")
    if not config.eval_every:
        harmless.add("predict")
    return harmless
