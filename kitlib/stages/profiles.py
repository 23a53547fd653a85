"""Profiles: the parameters of all notebooks, from ``notebooks/profiles/NAME.yaml`` and ``--set``, checked."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import config
from kitlib.errors import KitError, unknown
from kitlib.stages.names import NOTEBOOKS, STAGES, notebook, resolve


@dataclass(frozen=True)
class Plan:
    """What a run does: the parameters of each stage, all of them, defaults included."""

    profile: str
    parameters: dict[str, dict[str, Any]]


def plan(profile: str, settings: Sequence[str] = (), common: Mapping[str, Any] | None = None) -> Plan:
    """The parameters of every notebook.

    Args:
        profile: name of a file in ``notebooks/profiles``, or a path to a YAML file of such sections.
        settings: "03_train.max_iter=100" texts; they win over the profile.
        common: values for every notebook that has such a parameter (data, out, gpus).

    Raises:
        KitError: an unknown profile, stage or parameter (the nearest is named), or a value of a wrong type.
    """
    sections = _read_profile(profile)
    defaults = {stage: parameters(notebook(stage)) for stage in STAGES}
    plans = {}
    for stage in STAGES:
        known = defaults[stage]
        values = {k: v for k, v in (common or {}).items() if k in known}
        for name, value in (sections.get(stage) or {}).items():
            values[name] = check(stage, name, value, known, f"profile '{profile}', ")
        plans[stage] = {**known, **values}
    for setting in settings:
        stage, name, text = _split(setting)
        name, *keys = name.split(".")  # schedule.max_lr is one value of the parameter schedule
        if keys:
            check(stage, name, {}, plans[stage], "--set ")
            plans[stage][name] = _with(plans[stage][name], keys, _literal(text))
        else:
            plans[stage][name] = parse(stage, name, text, defaults[stage])
    return Plan(Path(profile).stem, plans)


def parameters(path: Path) -> dict[str, Any]:
    """Names and default values of a notebook's parameters, in order, from its cell tagged ``parameters``."""
    import nbformat

    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception as error:  # nbformat raises what it pleases at a damaged file
        raise KitError(f"{path} is not a readable notebook ({error}); restore it") from error
    sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    assignments = [
        node for source in sources for node in ast.parse(source).body if isinstance(node, ast.Assign)
    ]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}


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
    if default is not None and value is not None and type(value) is not type(default):
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


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _with(values: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested dicts with one value replaced."""
    inner = _with(values.get(keys[0]) or {}, keys[1:], value) if len(keys) > 1 else value
    return {**values, keys[0]: inner}


def _as_float(value: int | str) -> Any:
    try:
        return float(value)  # YAML reads 1e-5 as text
    except ValueError:
        return value


def _split(setting: str) -> tuple[str, str, str]:
    target, equals, text = setting.partition("=")
    stage, dot, name = target.strip().partition(".")
    if not equals or not dot:
        raise KitError(f"--set '{setting}' must look like 03_train.max_iter=100")
    return resolve(stage), name, text.strip()


def _read_profile(profile: str) -> dict[str, Any]:
    folder = NOTEBOOKS / "profiles"
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else folder / f"{profile}.yaml"
    if not path.is_file():
        raise unknown("profile", profile, [p.stem for p in folder.glob("*.yaml")])
    sections = config.read_yaml(path)
    for stage, section in sections.items():
        if stage not in STAGES:
            raise unknown(f"section of {path}:", stage, STAGES)
        if not isinstance(section, dict | None):
            raise KitError(f"{path}: section {stage} must hold 'parameter: value' lines")
    return sections
