"""Profiles: the parameters of all notebooks, from ``notebooks/profiles/NAME.yaml`` and ``--set``, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

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
            name: check(stage, name, config.overlay(known.get(name), value), known, f"profile '{profile}', ")
            for name, value in (profiled.get(stage) or {}).items()
        }
        shared = {name: value for name, value in (common or {}).items() if name in known}
        plans[stage] = {**known, **values, **shared}
    for setting in settings:
        stage, name, value = _read_setting(setting, defaults)
        plans[stage][name] = config.overlay(plans[stage][name], value)
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
    if isinstance(default, float) and type(value) in (int, str):
        value = _as_float(value)
    if name == "amp" and value is False:
        value = "off"  # as papermill's reader of YAML takes the word
    if default is not None and type(value) is not type(default):
        expected = type(default).__name__
        raise KitError(
            f"{where}{stage}.{name} must be of type {expected} (default {default!r}), not {value!r}"
        )
    return value


def _as_float(value: int | str) -> Any:
    try:
        return float(value)  # papermill's reader of YAML takes 1e-5 for text
    except ValueError:
        return value


def _read_setting(setting: str, defaults: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, Any]:
    """Stage, parameter and value of a ``--set`` text: STAGE.NAME=VALUE, or STAGE.NAME.KEY=VALUE for one key.

    Raises:
        KitError: it has another form, or names what there is not, or the value is of a wrong type.
    """
    target, equals, text = check_text(setting).partition("=")
    stage, dot, path = target.strip().partition(".")
    if not equals or not dot:
        raise KitError(f"--set '{setting}' must look like 03_train.max_iter=100")
    stage, (name, *keys) = resolve(stage), path.split(".")
    if name in ("data", "out"):
        raise KitError(f"--set '{setting}': all stages have the same; give it as --{name}")
    known = defaults[stage]
    check(stage, name, known.get(name), known, "--set ")
    _check_keys(f"--set {stage}.{path}", known[name], keys)
    value = text.strip() if isinstance(known[name], str) else _value(setting, text)
    for key in reversed(keys):
        value = {key: value}
    if not keys:
        value = check(stage, name, value, known, "--set ")
    return stage, name, _found_here(value) if name in FILES else value


def _check_keys(where: str, value: Any, keys: Sequence[str]) -> None:
    """Raise KitError if keys lead into a value that has none."""
    for key in keys:
        if not isinstance(value, Mapping):
            raise KitError(f"{where}: there is no '{key}' in {value!r}; set that as a whole")
        value = value.get(key, {})


def _value(setting: str, text: str) -> Any:
    """The value of a text as YAML has it; None, as Python writes it, is null."""
    try:
        return None if text.strip() == "None" else config.parse_yaml(text)
    except yaml.YAMLError as error:
        raise KitError(
            f"--set '{setting}': {' '.join(str(error).split())[:80]}; quote it as YAML asks"
        ) from None


def _found_here(value: Any) -> Any:
    """Files named from where the command was given, by whole paths: the notebooks run in their own folder."""
    if isinstance(value, list):
        return [_found_here(one) for one in value]
    path = Path(str(value)).expanduser()
    return str(path.resolve()) if value and path.is_file() else value


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
