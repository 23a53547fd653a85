"""The parameters of a run: the notebooks' own, those of a profile and those of ``--set`` laid over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from kitlib import config
from kitlib.data import competition
from kitlib.errors import KitError, unknown
from kitlib.stages import checks, fitting, notebooks
from kitlib.stages.notebooks import NOTEBOOKS, STAGES

#: Parameters that name files.
_FILES = ("weights", "post_processing", "corrections")
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Plan:
    """What a run does: the parameters of each stage, all of them, defaults included, and its notebooks.

    Attributes:
        device: what the profile is made for: "gpu", or "cpu" if it takes no more than hours without one.
        search: what a search varies, as the profile has it, see ``kitlib.stages.search.space``.
    """

    profile: str
    parameters: dict[str, dict[str, Any]]
    notebooks: Path = NOTEBOOKS
    device: Device = "cpu"
    search: Mapping[str, Any] = field(default_factory=dict)

    def in_folders(self, data: Path, out: Path) -> Plan:
        """The plan for the folder of the data and that of the run, which all stages have in common."""
        both = {"data": str(data), "out": str(out)}
        return replace(self, parameters={stage: values | both for stage, values in self.parameters.items()})


def plan(
    profile: str,
    settings: Sequence[str] = (),
    common: Mapping[str, Any] | None = None,
    folder: Path = NOTEBOOKS,
    own_data: bool = False,
) -> Plan:
    """The parameters of every notebook.

    Args:
        profile: name of a file in ``notebooks/profiles``, or a path to a YAML file of such sections.
        settings: "03_train.max_iter=100" texts, "all.seed=1" for every notebook that has such a parameter;
            they win over the profile.
        common: values for every notebook that has such a parameter (gpus); they win over the profile.
        folder: where the notebooks and ``profiles/`` lie.
        own_data: the data are not the competition's. What a named profile says of the competition's types is
            then left out, and what ``settings`` or a profile of one's own set is not taken from the data.

    Raises:
        KitError: an unknown profile or stage, or as ``checks.check``.
    """
    sections = _read_profile(profile, folder / "profiles")
    device, search = sections.pop("device", "cpu"), sections.pop("search", None) or {}
    own = {stage: notebooks.parameters(notebooks.notebook(stage, folder)) for stage in STAGES}
    categories = () if own_data else competition.CATEGORIES
    if own_data:
        sections = _without_types(sections)
    values = {stage: config.overlay(own[stage], sections.get(stage) or {}) for stage in STAGES}
    checks.check(values, categories, f"profile '{profile}', ")
    for stage in STAGES:
        values[stage] |= {name: value for name, value in (common or {}).items() if name in own[stage]}
    chosen: dict[str, Any] = sections if _is_file(profile) else {}
    for setting in settings:
        read = _read_setting(setting, own)
        values, chosen = config.overlay(values, read), config.overlay(chosen, read)
    if own_data:
        values = config.overlay(values, fitting.left_to_data(chosen))
    return Plan(Path(profile).stem, checks.check(values, categories), folder, device, search)


def _without_types(section: Any) -> Any:
    """The mappings of a profile, in lists as well, without the competition's types of cells as keys."""
    if isinstance(section, list):
        return [_without_types(value) for value in section]
    if not isinstance(section, Mapping):
        return section
    return {key: _without_types(value) for key, value in section.items() if key not in competition.CATEGORIES}


def _read_setting(setting: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A ``--set`` text, STAGE.NAME=VALUE or STAGE.NAME.KEY=VALUE, as nested dictionaries.

    Raises:
        KitError: it has another form, names no stage, or is for all and no stage has such a parameter.
    """
    target, equals, text = notebooks.check_text(setting).partition("=")
    stage, dot, path = target.strip().partition(".")
    if not equals or not dot:
        raise KitError(f"--set '{setting}' must look like 03_train.max_iter=100")
    name, *keys = path.split(".")
    if stage == "all":
        having = [stage for stage in STAGES if name in known[stage]]
        if not having and name not in ("data", "out"):
            raise unknown("parameter of any stage:", name, {n for values in known.values() for n in values})
    else:
        having = [notebooks.resolve(stage)]
    if name in ("data", "out"):
        raise KitError(f"--set '{setting}': all stages have the same; give it as --{name}")
    is_text = any(isinstance(known[stage].get(name), str) for stage in having)
    value = text.strip() if is_text else _value(setting, text)
    value = _found_here(value) if name in _FILES else value
    for key in (*reversed(keys), name):
        value = {key: value}
    return dict.fromkeys(having, value)


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


def _is_file(profile: str) -> bool:
    return profile.endswith((".yaml", ".yml"))


def _read_profile(profile: str, folder: Path) -> dict[str, Any]:
    path = Path(profile) if _is_file(profile) else folder / f"{profile}.yaml"
    if not path.is_file():
        raise unknown("profile", profile, [p.stem for p in folder.glob("*.yaml")])
    read = config.read_yaml(path)
    for stage, section in read.items():
        if stage == "device":
            if section not in get_args(Device):
                raise unknown(f"device of {path}:", section, get_args(Device))
        elif stage not in (*STAGES, "search"):
            raise unknown(f"section of {path}:", stage, (*STAGES, "device", "search"))
        elif not isinstance(section, dict | None):
            raise KitError(f"{path}: section {stage} must hold 'parameter: value' lines")
    return read
