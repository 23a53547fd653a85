"""The parameters of a run: the notebooks' own, those of a profile and those of ``--set`` laid over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from kitlib import config
from kitlib.errors import KitError, unknown
from kitlib.stages import notebooks, parameters
from kitlib.stages.notebooks import NOTEBOOKS, STAGES

#: Parameters that name files.
_FILES = ("weights", "post_processing")
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
    folder: Path = NOTEBOOKS,
) -> Plan:
    """The parameters of every notebook.

    Args:
        profile: name of a file in ``notebooks/profiles``, or a path to a YAML file of such sections.
        settings: "03_train.max_iter=100" texts; they win over the profile.
        common: values for every notebook that has such a parameter (gpus); they win over the profile.
        folder: where the notebooks and ``profiles/`` lie.

    Raises:
        KitError: an unknown profile or stage, or as ``parameters.check``.
    """
    sections = _read_profile(profile, folder / "profiles")
    device = sections.pop("device", "cpu")
    own = {stage: notebooks.parameters(notebooks.notebook(stage, folder)) for stage in STAGES}
    values = {stage: config.overlay(own[stage], sections.get(stage) or {}) for stage in STAGES}
    parameters.check(values, f"profile '{profile}', ")
    for stage in STAGES:
        values[stage] |= {name: value for name, value in (common or {}).items() if name in own[stage]}
    for setting in settings:
        values = config.overlay(values, _read_setting(setting, own))
    return Plan(Path(profile).stem, parameters.check(values), folder, device)


def _read_setting(setting: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A ``--set`` text, STAGE.NAME=VALUE or STAGE.NAME.KEY=VALUE, as nested dictionaries.

    Raises:
        KitError: it has another form, or names no stage.
    """
    target, equals, text = notebooks.check_text(setting).partition("=")
    stage, dot, path = target.strip().partition(".")
    if not equals or not dot:
        raise KitError(f"--set '{setting}' must look like 03_train.max_iter=100")
    stage, (name, *keys) = notebooks.resolve(stage), path.split(".")
    if name in ("data", "out"):
        raise KitError(f"--set '{setting}': all stages have the same; give it as --{name}")
    value = text.strip() if isinstance(known[stage].get(name), str) else _value(setting, text)
    value = _found_here(value) if name in _FILES else value
    for key in (*reversed(keys), name):
        value = {key: value}
    return {stage: value}


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
        elif stage not in STAGES:
            raise unknown(f"section of {path}:", stage, (*STAGES, "device"))
        elif not isinstance(section, dict | None):
            raise KitError(f"{path}: section {stage} must hold 'parameter: value' lines")
    return read
