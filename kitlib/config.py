"""Configurations: frozen dataclasses, nested where a part has its own owner, saved as YAML."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kitlib import files
from kitlib.errors import KitError, unknown

T = TypeVar("T")


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build the frozen dataclass ``cls`` from plain values, nested dataclasses from nested dicts.

    Lists become tuples where the field is a tuple, ints become floats where it is a float.

    Args:
        where: what the values belong to, for messages ("03_train", "config.yaml").

    Raises:
        KitError: an unknown key (the nearest known one is named), a missing one or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise KitError(f"{where or cls.__name__} must be a section of keys and values, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise unknown(f"key in {where}" if where else "key", key, fields)
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise KitError(f"{where or cls.__name__} lacks '{name}', which has no default; give it a value")
    built = {k: _convert(hints[k], v, f"{where}.{k}" if where else k) for k, v in values.items()}
    return cls(**built)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists and scalars of a configuration; ``from_dict`` turns them back."""
    return _plain(dataclasses.asdict(config))


def load(cls: type[T], path: Path | str) -> T:
    """Read a configuration from a YAML file.

    Raises:
        KitError: the file is missing or not YAML, or a key or value is wrong.
    """
    return from_dict(cls, read_yaml(path), str(path))


def save(config: Any, path: Path | str) -> Path:
    """Write a configuration as YAML, atomically."""
    return files.write_text(path, dumps(config))


def dumps(config: Any) -> str:
    """The configuration as YAML text, for printing."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=100)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        KitError: the file is missing or not a YAML mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KitError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(values, dict | None):
        raise KitError(f"{path} must hold keys and values")
    return values or {}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type that ``hint`` names, or a KitError that says what was expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise unknown(f"value of {where}:", value, args)
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(args, value, where)
    if origin is dict and isinstance(value, dict):
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(origin or hint, value, where)


def _convert_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    for choice in choices[:-1]:
        try:
            return _convert(choice, value, where)
        except KitError:
            continue
    return _convert(choices[-1], value, where)


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if args[-1] is Ellipsis:
        return tuple(_convert(args[0], v, where) for v in value)
    if len(args) != len(value):
        raise KitError(f"{where} must hold {len(args)} values, not {len(value)}: {value!r}")
    return tuple(_convert(a, v, where) for a, v in zip(args, value, strict=True))


def _convert_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-5 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is Path and isinstance(value, str):
        return Path(value)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or wrong_bool:
        raise KitError(f"{where} must be {kind.__name__}, not {value!r}")
    return value
