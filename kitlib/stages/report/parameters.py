"""Parameters side by side: which differ, and how each is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kitlib import config

# All stages of a run have these in common, and they say where and not what.
_PLACES = ("data", "out")
_ABSENT = "not set"


def flat(parameters: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Parameters by name, keys of nested ones as "schedule.max_lr".

    Example:
        >>> flat({"seed": 0, "schedule": {"max_lr": 0.1}})
        {'seed': 0, 'schedule.max_lr': 0.1}
    """
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{path}{name}.") if nested else {f"{path}{name}": value}
    return found


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The parameters that two stages do not share, by name, each as both write it; folders aside."""
    sides = [{n: shown(v) for n, v in flat(side).items() if n not in _PLACES} for side in (first, second)]
    names = dict.fromkeys([*sides[0], *sides[1]])
    values = {name: (sides[0].get(name, _ABSENT), sides[1].get(name, _ABSENT)) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def shown(value: Any) -> str:
    """A value as a profile would have it."""
    return config.format_yaml([config.to_plain(value)], one_line=True).strip()[1:-1]
