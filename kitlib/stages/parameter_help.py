"""A stage's parameters as text: name, default, type, bounds, what a change affects, help."""

from __future__ import annotations

import dataclasses
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic.fields import FieldInfo

from kitlib import config
from kitlib.config import Affects
from kitlib.stages.parameters import MODELS
from kitlib.stages.report.parameters import shown

_WIDTH = 110
_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least"}
_LEGEND = (
    "A change of what affects place or speed leaves all results as they are; of what comes after a training, "
    "the training; of the report, the training and later stages; of evaluation or length, a training that "
    "was interrupted. After any other the stage runs anew. A key is set by --set STAGE.NAME.KEY=VALUE."
)


class Row(NamedTuple):
    """One parameter, or one key of a parameter, whose name is then such as "schedule.max_lr"."""

    name: str
    default: str
    affects: str
    kind: str
    help: str


def table(stage: str) -> str:
    """The parameters of a stage in aligned columns, each with its help below it.

    Args:
        stage: "03_train".
    """
    head = Row(stage, "default", "affects", "type and bounds", _LEGEND)
    found = [head, *rows(MODELS[stage])]
    widths = [max(len(row[column]) for row in found) for column in range(3)]
    lines = []
    for row in found:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row.kind]).rstrip())
        lines += textwrap.wrap(row.help, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def rows(cls: type) -> Iterator[Row]:
    """The fields of a configuration in order, each before its keys."""
    default = cls()
    result = "training" if hasattr(cls, "images_per_process") else "results"
    for name, field in config.fields(cls).items():
        value, nested = getattr(default, name), config.inner(field)
        affects = next((mark.what for mark in field.metadata if isinstance(mark, Affects)), result)
        shown, kind = ("", "keys, as below") if nested else (_shown(value), _kind(field))
        yield Row(name, shown, affects, kind, config.description(cls, name))
        if nested:
            yield from _keys(nested, f"{name}.", value)


def _keys(cls: type, path: str, values: Any) -> Iterator[Row]:
    """The keys of a parameter; ``values``: their defaults, some alone in a dictionary, none in a list."""
    known = values if isinstance(values, dict) else vars(values) if dataclasses.is_dataclass(values) else {}
    for name, field in config.fields(cls).items():
        shown = _shown(known[name]) if name in known else ""
        yield Row(f"{path}{name}", shown, "", _kind(field), config.description(cls, name))


def _shown(value: Any) -> str:
    """A default as a profile would have it."""
    text = value if isinstance(value, str) and value else shown(value)
    return textwrap.shorten(text, 40, placeholder=" ...")


def _kind(field: FieldInfo) -> str:
    return _words(field.annotation) + _bounds(field.metadata)


def _words(hint: Any) -> str:
    """A type in words."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _words(parts[0]) + _bounds(parts[1:])
    if origin is Literal:
        return _listed([str(part) for part in parts])
    if origin in (typing.Union, types.UnionType):
        return _listed(["null" if part is type(None) else _words(part) for part in parts])
    if origin is tuple:
        return (
            f"list: {_words(parts[0])}" if parts[-1] is ... else f"list of {len(parts)}: {_words(parts[0])}"
        )
    if origin is dict and parts[1] is not Any:
        return f"by type: {_words(parts[1])}"
    return "keys and values"


def _listed(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bounds(marks: Iterable[Any]) -> str:
    """Bounds as " (>= 0, < 1)"; empty where there are none."""
    inside = (m.metadata if isinstance(m, FieldInfo) else [m] for m in marks)
    found = [m for metadata in inside for m in metadata]
    words = [
        f"{word} {getattr(m, name)}" for m in found for name, word in _BOUNDS.items() if hasattr(m, name)
    ]
    return f" ({', '.join(words)})" if words else ""
