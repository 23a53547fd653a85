"""Configurations: frozen dataclasses whose values pydantic checks, nested where a part has its own owner.

Files are YAML, read so that ``1e-3`` is a number and ``off`` a word.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
import pydantic.dataclasses
import yaml
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict, dataclass_transform

from kitlib import files
from kitlib.errors import KitError, shortened, unknown

T = TypeVar("T")


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
Count = Annotated[Int, Field(ge=0)]
PositiveCount = Annotated[Int, Field(ge=1)]
Share = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[Float, Field(gt=0)]
Precision = Annotated[Literal["off", "bf16", "fp16"], BeforeValidator(_word)]
"""Mixed precision by name."""


@dataclasses.dataclass(frozen=True)
class Affects:
    """What a change of a field affects, as part of its type: ``Annotated[int, Affects("speed")]``.

    A field without it affects the result, and all that was made of it.

    Attributes:
        what: "place" where files lie and what computes; "speed" how fast it goes and how often it is saved;
            "after" what is made of a training; "report" what is shown of it, of which nothing else is made;
            "evaluation" how a training is evaluated on its way, and "length" how long it is, either of which
            an interrupted training may change.
        where: an attribute of the configuration; where that is false, the field affects the result.
    """

    what: Literal["place", "speed", "after", "report", "evaluation", "length"]
    where: str = ""


def affecting(config: Any, *what: str, always: bool = False) -> set[str]:
    """The fields of a configuration that affect nothing but one of these, see ``Affects``.

    Args:
        config: an instance.
        what: as in ``Affects``.
        always: leave out the fields of which it depends on the others' values.
    """
    return {
        name
        for name, field in fields(type(config)).items()
        for mark in field.metadata
        if isinstance(mark, Affects) and mark.what in what
        if not mark.where or (not always and getattr(config, mark.where))
    }


@dataclasses.dataclass(frozen=True)
class Part:
    """Says that a dictionary holds some fields of a configuration: ``Annotated[dict[str, Any], Part(Cls)]``.

    Each value is checked for itself; what they are together, only where they are laid over the others.
    """

    of: type

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        named = {name: field.rebuild_annotation() for name, field in fields(self.of).items()}
        some = TypedDict(self.of.__name__, named, total=False)  # type: ignore[misc]
        some.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
        return handler.generate_schema(some)


def with_defaults(**values: Any) -> Callable[[type[T]], type[T]]:
    """Decorate a class below ``configuration``: these inherited fields get other defaults."""

    def change(cls: type[T]) -> type[T]:
        for name, value in values.items():
            base = next(c for c in cls.__mro__[1:] if name in fields(c))
            cls.__annotations__[name] = fields(base)[name].rebuild_annotation()
            setattr(cls, name, Field(value, description=description(base, name)))
        return cls

    return change


def description(cls: type, name: str) -> str:
    """The text below a field of a configuration, as one line; "" where there is none."""
    # pydantic notes it at the class that declares the field alone.
    found = (fields(c)[name].description for c in cls.__mro__ if name in fields(c))
    return " ".join(next(filter(None, found), "").split())


def fields(cls: Any) -> dict[str, FieldInfo]:
    """What pydantic knows of a configuration's fields, by name and in order; empty for any other class."""
    return getattr(cls, "__pydantic_fields__", {})


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
    which raises ValueError with a sentence about the fields. A class attribute ``RENAMED`` gives the new
    names of former keys, for the error that they are refused with.

    Raises:
        KitError: by the class it returns: a value of a wrong type or out of bounds, with the field's name.
    """
    settings = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    if "__post_init__" in cls.__dict__:
        type.__setattr__(cls, "__post_init__", _located(cls.__dict__["__post_init__"]))
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=settings)(cls)
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


def _located(check: Callable[[T], None]) -> Callable[[T], None]:
    """The check with its KitErrors as ValueErrors, to which pydantic adds the field that they are about."""

    @functools.wraps(check)
    def checked(self: T) -> None:
        try:
            check(self)
        except KitError as error:
            raise ValueError(str(error)) from None

    return checked


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
        raise KitError(
            f"{where or cls.__name__} must be a section of keys and values, not {shortened(repr(values))}"
        )
    try:
        return typing.cast(T, _adapter(typing.cast(Any, cls)).validate_python(values))
    except pydantic.ValidationError as error:
        raise KitError(_sentence(error, cls, values, where)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists and scalars of a configuration; ``from_dict`` turns them back."""
    return to_plain(dataclasses.asdict(config))


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


def format_yaml(values: Any, one_line: bool = False) -> str:
    """Plain values as YAML text, which ``parse_yaml`` and other readers of YAML take for the same values."""
    form = {"default_flow_style": True, "width": float("inf")} if one_line else {"default_flow_style": None}
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, **{"width": 100, **form})


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
        yaml.YAMLError: it is not YAML, or holds what Python cannot: a number of thousands of digits.

    Example:
        >>> parse_yaml("{max_lr: 1e-3, amp: off, soft: true}")
        {'max_lr': 0.001, 'amp': 'off', 'soft': True}
    """
    try:
        return yaml.load(text, _Loader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


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


def to_plain(value: Any) -> Any:
    """Lists, dicts and scalars that YAML can hold."""
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
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
def _adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cls)


def _sentence(error: pydantic.ValidationError, cls: type, values: Any, where: str) -> str:
    """One of pydantic's findings as a sentence that names the field."""
    findings = error.errors(include_url=False)
    found = max(findings, key=lambda finding: len(finding["loc"]))  # of alternatives, the one that fits best
    kind, place, context = found["type"], found["loc"], found.get("ctx", {})
    keys, value = _follow(values, place)
    path = ".".join(filter(None, [where, *map(shortened, keys)]))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        section = ".".join(filter(None, [where, *map(shortened, keys[:-1])]))
        owner = _class_at(cls, keys[:-1])
        renamed = getattr(owner, "RENAMED", {}).get(keys[-1])
        if renamed:
            return f"{path} is now '{renamed}'; rename it there, or run the stage that writes it again"
        names = fields(owner)
        return str(unknown(f"key in {section}" if section else "key", keys[-1], names))
    if kind in ("missing", "missing_argument"):
        if isinstance(place[-1], str):
            return f"{path or cls.__name__} lacks '{place[-1]}', which has no default; give it a value"
        length = 1 + max(int(other["loc"][-1]) for other in findings if other["loc"][:-1] == place[:-1])
        return f"{path} must hold {length} values, not {shortened(repr(value))}"
    if kind == "literal_error":
        choices = [text.strip("'") for text in re.findall(r"'[^']*'|\d+", context["expected"])]
        return str(unknown(f"value of {path}:", value, choices))
    if kind == "value_error" and _class_at(cls, keys) is not None:
        return f"{path}: {context['error']}" if path else str(context["error"])
    return f"{path} must {_need(found)}, not {shortened(repr(value))}"


def _need(found: Any) -> str:
    """What a field needs, in a few words."""
    kind, context = found["type"], found.get("ctx", {})
    if kind in _NEEDS:
        return _NEEDS[kind].format(**context)
    wanted = next((words for start, words in _TYPES.items() if kind.startswith(start)), None)
    return wanted or f"be right ({found['msg'].removeprefix('Value error, ')})"


def _follow(values: Any, place: Sequence[Any]) -> tuple[list[str], Any]:
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
    """The class of a nested configuration, or of which a part is given; None where there is none."""
    for key in keys:
        if key.isdigit() and dataclasses.is_dataclass(cls):
            continue  # the place in a list of configurations
        field = fields(cls).get(key)
        if field is None:
            return None
        cls = inner(field)
    return cls


def inner(field: FieldInfo) -> Any:
    """The configuration that a field holds, whole or in part; None for a field of plain values."""
    parts = [mark.of for mark in field.metadata if isinstance(mark, Part)]
    inside: tuple[Any, ...] = (*parts, field.annotation, *typing.get_args(field.annotation))
    return next((c for c in inside if dataclasses.is_dataclass(c)), None)
