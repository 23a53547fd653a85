"""Configurations: frozen dataclasses whose values pydantic checks, nested where a part has its own owner.

Files are YAML, read so that ``1e-3`` is a number and ``off`` a word.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
import pydantic.dataclasses
import yaml
from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import dataclass_transform

from kitlib import files
from kitlib.errors import KitError, unknown

T = TypeVar("T")
QUOTED = 80  # characters of a wrong value that an error shows


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


def _word(value: Any) -> Any:
    """YAML's own readers, papermill's among them, take the word off for False."""
    return "off" if value is False else value


Int = Annotated[int, Field(strict=True)]
"""A whole number; neither text nor true or false, which Python takes for numbers."""
Float = Annotated[float, BeforeValidator(_number)]
"""A number, also as text ("1e-3")."""
Share = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[Float, Field(gt=0)]
Precision = Annotated[Literal["off", "bf16", "fp16"], BeforeValidator(_word)]
"""Mixed precision by name."""


@dataclasses.dataclass(frozen=True)
class Affects:
    """What a change of a field affects, as part of its type: ``Annotated[int, Affects("speed")]``.

    Attributes:
        what: "place" where files lie; "speed" nothing but how fast it goes or how often it is saved;
            "watching" how a training is evaluated on its way, which an interrupted one may change. A field
            without it affects the result.
    """

    what: Literal["place", "speed", "watching"]


def affecting(cls: type, *what: str) -> set[str]:
    """The fields of a configuration that affect one of these, see ``Affects``."""
    marks = {name: field.metadata for name, field in cls.__pydantic_fields__.items()}
    return {
        name for name, found in marks.items() if any(isinstance(m, Affects) and m.what in what for m in found)
    }


def overlay(under: Any, over: Any) -> Any:
    """``over`` laid over ``under``: of two mappings the keys of both, of anything else ``over`` alone.

    Example:
        >>> overlay({"name": "cosine", "steps": {"a": 1}}, {"steps": {"b": 2}})
        {'name': 'cosine', 'steps': {'a': 1, 'b': 2}}
    """
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    return {**under, **{key: overlay(under.get(key), value) for key, value in over.items()}}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def configuration(cls: type[T]) -> type[T]:
    """Decorate a class of annotated fields: a frozen dataclass that checks its values when it is made.

    The text below a field is its help. What types and bounds cannot say is checked in ``__post_init__``,
    which raises ValueError with a sentence about the fields.

    Raises:
        KitError: by the class it returns: a value of a wrong type or out of bounds, with the field's name.
    """
    settings = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    made = pydantic.dataclasses.dataclass(frozen=True, config=settings)(cls)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **values: Any) -> None:
        values |= dict(zip((field.name for field in dataclasses.fields(made)), args, strict=False))
        try:
            checked(self, **values)
        except pydantic.ValidationError as error:
            raise KitError(_sentence(error, made, values, "")) from None

    made.__init__ = init
    return made


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a configuration from plain values, nested ones from nested dicts.

    Lists become tuples where the field is a tuple, whole numbers and text floats where it is a float.

    Args:
        cls: the class, made by ``configuration``.
        values: by field; what is left out has its default.
        where: what the values belong to, for messages ("03_train", "config.yaml").

    Raises:
        KitError: an unknown key (the nearest known one is named), a missing one, or a value of a wrong type
            or out of bounds.
    """
    if not isinstance(values, Mapping):
        raise KitError(f"{where or cls.__name__} must be a section of keys and values, not {_quoted(values)}")
    try:
        return _adapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise KitError(_sentence(error, cls, values, where)) from None


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
    return format_yaml(to_dict(config))


def format_yaml(values: Any) -> str:
    """Plain values as YAML text, which ``parse_yaml`` and other readers of YAML take for the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        KitError: the file is missing or not a YAML mapping.
    """
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KitError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(values, dict | None):
        raise KitError(f"{path} must hold keys and values")
    return values or {}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, with the numbers and words of YAML 1.2.

    Raises:
        yaml.YAMLError: it is not YAML.

    Example:
        >>> parse_yaml("{max_lr: 1e-3, amp: off, soft: true}")
        {'max_lr': 0.001, 'amp': 'off', 'soft': True}
    """
    return yaml.load(text, _Loader)


_BOOL = "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?
        |[-+]?\d+[eE][-+]?\d+
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


class _Loader(yaml.SafeLoader):
    """YAML 1.1, PyYAML's, reads 1e-3 as text, and off, on, yes and no as true or false."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in entries if tag not in (_BOOL[0], _FLOAT[0])]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes a text that either version of YAML would read as something else."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(*_BOOL)
    _kind.add_implicit_resolver(*_FLOAT)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


# ------------------------------------------------------------------------------------------ errors

_NEEDS = {
    "greater_than_equal": "be at least {ge:g}",
    "greater_than": "be above {gt:g}",
    "less_than_equal": "be at most {le:g}",
    "less_than": "be below {lt:g}",
    "too_short": "hold at least {min_length} value(s)",
    "too_long": "hold at most {max_length} values",
    "value_error": "be a number",
}
_TYPES = {
    "int": "be a whole number",
    "float": "be a number",
    "string": "be text",
    "bool": "be true or false",
    "tuple": "be a list",
    "list": "be a list",
    "dict": "be a section of keys and values",
    "dataclass": "be a section of keys and values",
}


@functools.cache
def _adapter(cls: type[T]) -> pydantic.TypeAdapter[T]:
    return pydantic.TypeAdapter(cls)


def _sentence(error: pydantic.ValidationError, cls: type, values: Any, where: str) -> str:
    """One of pydantic's findings as a sentence that names the field."""
    findings = error.errors(include_url=False)
    found = max(findings, key=lambda finding: len(finding["loc"]))  # of alternatives, the one that fits best
    kind, place, context = found["type"], found["loc"], found.get("ctx", {})
    keys, value = _follow(values, place)
    path = ".".join(filter(None, [where, *keys]))
    if kind == "unexpected_keyword_argument":
        section = ".".join(filter(None, [where, *keys[:-1]]))
        names = [field.name for field in dataclasses.fields(_class_at(cls, keys[:-1]))]
        return str(unknown(f"key in {section}" if section else "key", keys[-1], names))
    if kind in ("missing", "missing_argument"):
        if isinstance(place[-1], str):
            return f"{path or cls.__name__} lacks '{place[-1]}', which has no default; give it a value"
        length = 1 + max(other["loc"][-1] for other in findings if other["loc"][:-1] == place[:-1])
        return f"{path} must hold {length} values, not {_quoted(value)}"
    if kind == "literal_error":
        choices = [text.strip("'") for text in re.findall(r"'[^']*'|\d+", context["expected"])]
        return str(unknown(f"value of {path}:", value, choices))
    if kind == "value_error" and dataclasses.is_dataclass(_class_at(cls, keys)):
        return f"{path}: {context['error']}" if path else str(context["error"])
    return f"{path} must {_need(found)}, not {_quoted(value)}"


def _need(found: Any) -> str:
    """What a field needs, in a few words."""
    kind, context = found["type"], found.get("ctx", {})
    if kind in _NEEDS:
        return _NEEDS[kind].format(**context)
    wanted = next((words for start, words in _TYPES.items() if kind.startswith(start)), None)
    return wanted or f"be right ({found['msg'].removeprefix('Value error, ')})"


def _follow(values: Any, place: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys of a finding that lead somewhere in the values, and what is there.

    pydantic also names the alternatives that a field may be ("float", "tuple[int, int]").
    """
    keys = []
    for step in place:
        if dataclasses.is_dataclass(values) and hasattr(values, str(step)):
            values = getattr(values, str(step))
        elif (isinstance(values, Mapping) and step in values) or (
            isinstance(values, list | tuple) and isinstance(step, int) and step < len(values)
        ):
            values = values[step]
        else:
            break
        keys.append(str(step))
    return keys, values


def _class_at(cls: Any, keys: Sequence[str]) -> Any:
    """The class of a nested configuration; whatever else a field holds, where it is none."""
    for key in keys:
        if not dataclasses.is_dataclass(cls):
            return None
        hint = typing.get_type_hints(cls).get(key)
        inner = [part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)]
        cls = inner[0] if inner else hint
    return cls


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."
