"""Profiles: the parameters of all notebooks, from ``notebooks/profiles/NAME.yaml`` and ``--set``, checked."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kitlib import config
from kitlib.errors import KitError, unknown
from kitlib.stages import sections
from kitlib.stages.names import NOTEBOOKS, STAGES, check_text, notebook, resolve
from kitlib.stages.notebooks import parameters

FILES = ("weights", "limits")
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Plan:
    """What a run does: the parameters of each stage, all of them, defaults included, and its notebooks.

    Attributes:
        device: what the profile is made for: "gpu", or "cpu" if it takes no more than hours without one.
    """

    profile: str
    parameters: dict[str, dict[str, Any]]
    notebooks: Path = NOTEBOOKS
    device: Device = "cpu"


def plan(
    profile: str,
    settings: Sequence[str] = (),
    common: Mapping[str, Any] | None = None,
    notebooks: Path = NOTEBOOKS,
) -> Plan:
    """The parameters of every notebook.

    Args:
        profile: name of a file in ``notebooks/profiles``, or a path to a YAML file of such sections.
        settings: "03_train.max_iter=100" texts; they win over the profile.
        common: values for every notebook that has such a parameter (gpus); they win over the profile.
        notebooks: where the notebooks and ``profiles/`` lie.

    Raises:
        KitError: an unknown profile, stage, parameter or part of one (the nearest is named), or a value of a
            wrong type or without sense.
    """
    profiled = _read_profile(profile, notebooks / "profiles")
    device = profiled.pop("device", "cpu")
    defaults = {stage: parameters(notebook(stage, notebooks)) for stage in STAGES}
    plans = {}
    for stage in STAGES:
        known = defaults[stage]
        values = {
            name: check(stage, name, value, known, f"profile '{profile}', ")
            for name, value in (profiled.get(stage) or {}).items()
        }
        shared = {name: value for name, value in (common or {}).items() if name in known}
        plans[stage] = {**known, **values, **shared}
    for setting in settings:
        stage, name, text = _split(setting)
        name, *keys = name.split(".")  # schedule.max_lr is one value of the parameter schedule
        if keys:
            check(stage, name, plans[stage].get(name), plans[stage], "--set ")
            plans[stage][name] = _with(plans[stage][name], keys, _literal(text), f"--set {stage}.{name}")
        else:
            value = parse(stage, name, text, defaults[stage])
            plans[stage][name] = _found_here(value) if name in FILES else value
    sections.check(plans)
    return Plan(Path(profile).stem, plans, notebooks, device)


def check(stage: str, name: str, value: Any, known: Mapping[str, Any], where: str = "") -> Any:
    """``value`` if the stage has such a parameter with a default of that type; ints pass as floats.

    Raises:
        KitError: it has not, or it is not.
    """
    if name not in known:
        raise unknown(f"parameter of {where}{stage}:", name, known)
    default = known[name]
    if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
        value = _as_float(value)
    if default is not None and type(value) is not type(default):
        expected = type(default).__name__
        raise KitError(
            f"{where}{stage}.{name} must be of type {expected} (default {default!r}), not {value!r}"
        )
    return value


def parse(stage: str, name: str, text: str, known: Mapping[str, Any]) -> Any:
    """The value of a ``--set`` text: as it stands for a text parameter, else a Python literal."""
    if isinstance(known.get(name), str):
        return text
    return check(stage, name, _literal(text), known, "--set ")


def _found_here(value: Any) -> Any:
    """Files named from where the command was given, by whole paths: the notebooks run in their own folder."""
    if isinstance(value, list):
        return [_found_here(one) for one in value]
    path = Path(str(value)).expanduser()
    return str(path.resolve()) if value and path.is_file() else value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _with(values: Any, keys: Sequence[str], value: Any, where: str) -> dict[str, Any]:
    """A copy of nested dicts with one value replaced."""
    if not isinstance(values, Mapping):
        raise KitError(f"{where} is {values!r}, which has no part '{keys[0]}'; set it as a whole")
    key, *rest = keys
    return {**values, key: _with(values.get(key, {}), rest, value, f"{where}.{key}") if rest else value}


def _as_float(value: int | str) -> Any:
    try:
        return float(value)  # YAML reads 1e-5 as text
    except ValueError:
        return value


def _split(setting: str) -> tuple[str, str, str]:
    target, equals, text = check_text(setting).partition("=")
    stage, dot, name = target.strip().partition(".")
    if not equals or not dot:
        raise KitError(f"--set '{setting}' must look like 03_train.max_iter=100")
    if name in ("data", "out"):
        raise KitError(f"--set '{setting}': all stages have the same; give it as --{name}")
    return resolve(stage), name, text.strip()


def _read_profile(profile: str, folder: Path) -> dict[str, Any]:
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else folder / f"{profile}.yaml"
    if not path.is_file():
        raise unknown("profile", profile, [p.stem for p in folder.glob("*.yaml")])
    read = config.read_yaml(path)
    for stage, section in read.items():
        if stage == "device":
            if section not in get_args(Device):
                raise unknown(f"device of {path}:", section, get_args(Device))
            continue
        if stage not in STAGES:
            raise unknown(f"section of {path}:", stage, (*STAGES, "device"))
        if not isinstance(section, dict | None):
            raise KitError(f"{path}: section {stage} must hold 'parameter: value' lines")
    return read
