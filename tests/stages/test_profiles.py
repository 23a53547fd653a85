"""The parameters of a run: the notebooks' own, the profile's, and those of --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitlib.errors import KitError
from kitlib.stages import STAGES, profiles
from kitlib.stages import notebooks as nb


def planned(notebooks: Path, *settings: str, profile: str = "demo", **common: Any) -> dict[str, dict]:
    return profiles.plan(profile, settings, common, notebooks).parameters


def refused(notebooks: Path, *settings: str, profile: str = "demo") -> str:
    with pytest.raises(KitError) as caught:
        planned(notebooks, *settings, profile=profile)
    return str(caught.value)


def test_all_parameters_are_there_in_the_notebooks_order(notebooks: Path) -> None:
    parameters = planned(notebooks)
    assert tuple(parameters) == STAGES
    assert list(parameters["03_train"])[:5] == ["data", "out", "gpus", "reading", "fold"]
    assert parameters["03_train"]["max_iter"] == 320


def test_the_profile_differs_where_it_says_so(notebooks: Path) -> None:
    parameters = planned(notebooks, profile="paper")
    assert parameters["03_train"]["max_iter"] == 5000
    assert parameters["03_train"]["ema_decay"] == 0.0
    assert isinstance(parameters["03_train"]["ema_decay"], float)
    assert parameters["02_pretrain_livecell"]["max_iter"] == 80
    # What a dictionary does not name stays as the notebook has it.
    schedule = {"name": "cosine", "max_lr": 1e-4, "min_lr": 1e-5, "warmup_iters": 10}
    assert parameters["05_retrain"]["schedule"] == schedule


def test_what_is_common_wins_over_the_profile_and_set_over_both(notebooks: Path) -> None:
    parameters = planned(notebooks, "04.gpus=0", profile="paper", gpus=2, not_a_parameter=1)
    assert [parameters[stage]["gpus"] for stage in STAGES[2:5]] == [2, 0, 2]
    assert "not_a_parameter" not in parameters["03_train"]


def test_a_profile_may_lie_anywhere(notebooks: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("01_eda: {examples: 7}\n")
    plan = profiles.plan(str(path), folder=notebooks)
    assert (plan.profile, plan.parameters["01_eda"]["examples"]) == ("mine", 7)


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ("03_train.max_iter=100", "max_iter", 100),
        ("03.max_iter = 100 ", "max_iter", 100),
        ("05.margin=-1", "margin", -1.0),
        ("05.margin=1e-3", "margin", 1e-3),
        ("05.margin=2", "margin", 2.0),
        ("04.weight_by_score=true", "weight_by_score", True),
        ("04.weight_by_score=False", "weight_by_score", False),
        ("03.weights=a=b, c", "weights", "a=b, c"),  # a text is taken as it stands
        ("03.weights=", "weights", ""),
        ("03.weights=007", "weights", "007"),
        ("03.weights=null", "weights", "null"),
        ("03.weights=/a path/to the.pth", "weights", "/a path/to the.pth"),
        ("03.amp=off", "amp", "off"),
        ("03.score_kinds=[mask, box]", "score_kinds", ["mask", "box"]),
        ("04.weights=[]", "weights", []),
        ('03.optim={"name": "sgd"}', "optim", {"name": "sgd", "weight_decay": 0.01, "clip_norm": 5.0}),
        ("03.optim={clip_norm: 1e-3}", "optim", {"name": "adamw", "weight_decay": 0.01, "clip_norm": 1e-3}),
        ("03.optim={}", "optim", {"name": "adamw", "weight_decay": 0.01, "clip_norm": 5.0}),
    ],
)
def test_values_of_every_kind(notebooks: Path, setting: str, name: str, expected: Any) -> None:
    value = planned(notebooks, setting)[nb.resolve(setting[:2])][name]
    assert value == expected
    assert type(value) is type(expected)


def test_keys_of_a_parameter(notebooks: Path) -> None:
    settings = ["03.augment.scale=[2, 3]", "03.augment.scale_by_type.cort=[1, 3]", "03.augment.crop=null"]
    parameters = planned(notebooks, *settings)
    augment = {"crop": None, "scale": [2, 3], "scale_by_type": {"cort": [1, 3]}}
    assert parameters["03_train"]["augment"] == augment
    assert parameters["05_retrain"]["augment"] == {"crop": [192, 192], "scale": [1.2, 1.8]}


def test_keys_are_set_in_what_the_profile_gives(notebooks: Path) -> None:
    parameters = planned(notebooks, "05.schedule.warmup_iters=3", profile="paper")
    schedule = {"name": "cosine", "max_lr": 1e-4, "min_lr": 1e-5, "warmup_iters": 3}
    assert parameters["05_retrain"]["schedule"] == schedule


def test_files_are_named_from_where_the_command_is_given(
    notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pth").touch()
    for given, meant in {"own.pth": f"{tmp_path}/own.pth", "imagenet": "imagenet", "": ""}.items():
        assert planned(notebooks, f"02.weights={given}")["02_pretrain_livecell"]["weights"] == meant


def test_the_last_setting_wins(notebooks: Path) -> None:
    assert planned(notebooks, "03.max_iter=1", "03.max_iter=2")["03_train"]["max_iter"] == 2


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            "03_train.max_iters=5",
            "unknown parameter of 03_train: 'max_iters': did you mean 'max_iter'?",
        ),
        ("03.optm.max_lr=5", "unknown parameter of 03_train: 'optm': did you mean 'optim'?"),
        ("03.optim.clip_nrom=5", "unknown key in 03_train.optim 'clip_nrom': did you mean 'clip_norm'?"),
        ("03_trian.max_iter=5", "unknown stage '03_trian': did you mean '03_train'?"),
        ("max_iter=5", "--set 'max_iter=5' must look like 03_train.max_iter=100"),
        ("03.max_iter", "--set '03.max_iter' must look like 03_train.max_iter=100"),
        ("03.max_iter=fast", "03_train.max_iter must be a whole number, not 'fast'"),
        ("03.max_iter=1.5", "03_train.max_iter must be a whole number, not 1.5"),
        ("03.max_iter=true", "03_train.max_iter must be a whole number, not True"),
        ("03.max_iter=", "03_train.max_iter must be a whole number, not None"),
        ("05.margin=quick", "05_retrain.margin must be a number, not 'quick'"),
        ("05.margin=true", "05_retrain.margin must be a number, not True"),
        ("04.weight_by_score=perhaps", "04_pseudolabel.weight_by_score must be true or false, not 'perhaps'"),
        ("03.score_kinds=3", "03_train.score_kinds must be a list, not 3"),
        ("03.score_kinds=(box, mask)", "03_train.score_kinds must be a list, not '(box, mask)'"),
        ("03.optim=fast", "03_train.optim must be a section of keys and values, not 'fast'"),
        ("03.score_kinds=[box, mask", "--set '03.score_kinds=[box, mask': while parsing a flow sequence"),
        ("03.max_iter.x=1", "03_train.max_iter must be a whole number, not {'x': 1}"),
        ("03.optim.momentum.x=1", "03_train.optim.momentum must be a number, not {'x': 1}"),
        ("03.out=here", "--set '03.out=here': all stages have the same; give it as --out"),
        ("03.data=there", "give it as --data"),
    ],
)
def test_a_bad_setting_is_named(notebooks: Path, setting: str, problem: str) -> None:
    assert problem in refused(notebooks, setting)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("03_trian: {max_iter: 1}", "unknown section of PATH: '03_trian': did you mean '03_train'?"),
        ("03: {max_iter: 1}", "unknown section of PATH: '3'"),  # YAML reads a number
        ("03_train: [1]", "PATH: section 03_train must hold 'parameter: value' lines"),
        (
            "03_train: {max_iters: 1}",
            "unknown parameter of profile 'PATH', 03_train: 'max_iters': did you mean",
        ),
        ("03_train: {max_iter: many}", "profile 'PATH', 03_train.max_iter must be a whole number"),
        ("03_train: {max_iter: }", "03_train.max_iter must be a whole number, not None"),
        ("03_train: {ema_decay: 1e-5x}", "03_train.ema_decay must be a number, not '1e-5x'"),
        ("03_train: {", "PATH is not valid YAML"),
    ],
)
def test_a_bad_profile_is_named(notebooks: Path, tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert problem.replace("PATH", str(path)) in refused(notebooks, profile=str(path))


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ("papper", "unknown profile 'papper': did you mean 'paper'? (known: demo, paper)"),
        ("nowhere/paper.yaml", "unknown profile 'nowhere/paper.yaml'"),
        ("", "unknown profile ''"),
    ],
)
def test_an_unknown_profile_is_named(notebooks: Path, profile: str, problem: str) -> None:
    assert problem in refused(notebooks, profile=profile)


@pytest.mark.parametrize("path", sorted((nb.NOTEBOOKS / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_of_the_kit_fits_its_notebooks(path: Path) -> None:
    assert tuple(profiles.plan(path.stem).parameters) == STAGES


# ---------------------------------------------------------------------------- images of one's own


def test_one_setting_for_all_notebooks(notebooks: Path) -> None:
    parameters = planned(notebooks, "all.seed=7", "03.seed=8")
    assert {parameters[stage]["seed"] for stage in STAGES if "seed" in parameters[stage]} == {7, 8}
    assert parameters["03_train"]["seed"] == 8
    assert "unknown parameter of any stage: 'sede': did you mean 'seed'?" in refused(notebooks, "all.sede=7")
    assert "give it as --data" in refused(notebooks, "all.data=x")


def test_a_profile_s_values_by_type_are_of_the_competition_alone() -> None:
    plan = profiles.plan("cpu", own_data=True).parameters["03_train"]
    assert plan["augment"]["scale_by_type"] == plan["predict_config"]["scales_by_type"] == {}
    assert plan["from_data"] == ["scales", "crop", "anchors", "grey_levels"]
    inside = [{"astro": [1, 2], "cell": [1, 2]}, {"augment": {"cort": [1, 2], "crop": [64, 64]}}]
    assert profiles._without_types(inside) == [{"cell": [1, 2]}, {"augment": {"crop": [64, 64]}}]
    assert profiles.plan("cpu").parameters["03_train"]["augment"]["scale_by_type"].keys() == {
        "astro",
        "shsy5y",
    }


def test_what_is_set_is_not_left_to_own_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("03_train: {model_options: {anchor_sizes: [[8], [16], [32], [64], [128]]}}\n")
    settings = ["03.augment.crop=[64, 64]", "04.min_area={neuron: 30}"]
    plan = profiles.plan(str(path), settings, own_data=True).parameters
    assert plan["03_train"]["from_data"] == ["scales", "grey_levels"]
    assert plan["04_pseudolabel"]["min_area"] == {"default": 20, "neuron": 30}
    with pytest.raises(KitError, match="unknown cell type 'neuron'"):
        profiles.plan(str(path), settings)
