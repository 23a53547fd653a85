"""The parameters of a run: the notebooks' own, the profile's, and those of --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitlib.errors import KitError
from kitlib.stages import STAGES, names, profiles


def planned(notebooks: Path, *settings: str, profile: str = "demo", **common: Any) -> dict[str, dict]:
    return profiles.plan(profile, settings, common, notebooks).parameters


def refused(notebooks: Path, *settings: str, profile: str = "demo") -> str:
    with pytest.raises(KitError) as caught:
        planned(notebooks, *settings, profile=profile)
    return str(caught.value)


def test_all_parameters_are_there_in_the_notebooks_order(notebooks: Path) -> None:
    parameters = planned(notebooks)
    assert tuple(parameters) == STAGES
    assert list(parameters["03_train"])[:4] == ["data", "out", "gpus", "max_iter"]
    assert parameters["03_train"]["max_iter"] == 10


def test_the_profile_differs_where_it_says_so(notebooks: Path) -> None:
    parameters = planned(notebooks, profile="paper")
    assert parameters["03_train"]["max_iter"] == 5000
    assert parameters["03_train"]["rate"] == 1.0
    assert isinstance(parameters["03_train"]["rate"], float)
    assert parameters["02_pretrain_livecell"]["max_iter"] == 10
    # What a dictionary does not name stays as the notebook has it.
    assert parameters["05_retrain"]["recipe"] == {"name": "cosine", "max_lr": 1e-5, "steps": {"first": 1}}


def test_what_is_common_wins_over_the_profile_and_set_over_both(notebooks: Path) -> None:
    parameters = planned(notebooks, "04.gpus=0", profile="paper", gpus=2, not_a_parameter=1)
    assert [parameters[stage]["gpus"] for stage in STAGES[2:5]] == [2, 0, 2]
    assert "not_a_parameter" not in parameters["03_train"]


def test_a_profile_may_lie_anywhere(notebooks: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("01_eda: {name: mine}\n")
    plan = profiles.plan(str(path), notebooks=notebooks)
    assert (plan.profile, plan.parameters["01_eda"]["name"]) == ("mine", "mine")


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ("03_train.max_iter=100", "max_iter", 100),
        ("03.max_iter = 100 ", "max_iter", 100),
        ("03.rate=-1", "rate", -1.0),
        ("03.rate=1e-3", "rate", 1e-3),
        ("03.rate=2", "rate", 2.0),
        ("03.flag=true", "flag", True),
        ("03.flag=False", "flag", False),
        ("03.name=a=b, c", "name", "a=b, c"),  # a text is taken as it stands
        ("03.name=", "name", ""),
        ("03.name=007", "name", "007"),
        ("03.name=null", "name", "null"),
        ("03.name=/a path/to the.pth", "name", "/a path/to the.pth"),
        ("03.sizes=[3, 4]", "sizes", [3, 4]),
        ("03.sizes=[]", "sizes", []),
        ('03.recipe={"name": "x"}', "recipe", {"name": "x", "max_lr": 6e-4, "steps": {"first": 1}}),
        ("03.recipe={max_lr: 1e-3}", "recipe", {"name": "cosine", "max_lr": 1e-3, "steps": {"first": 1}}),
        ("03.recipe={}", "recipe", {"name": "cosine", "max_lr": 6e-4, "steps": {"first": 1}}),
    ],
)
def test_values_of_every_kind(notebooks: Path, setting: str, name: str, expected: Any) -> None:
    value = planned(notebooks, setting)["03_train"][name]
    assert value == expected
    assert type(value) is type(expected)


def test_parts_of_a_parameter(notebooks: Path) -> None:
    settings = [
        "03.recipe.max_lr=1e-3",
        "03.recipe.steps.second=[2, 3]",
        "03.recipe.after.that=none",
        "03.recipe.cold=null",
    ]
    parameters = planned(notebooks, *settings)
    assert parameters["03_train"]["recipe"] == {
        "name": "cosine",
        "max_lr": 1e-3,
        "steps": {"first": 1, "second": [2, 3]},
        "after": {"that": "none"},
        "cold": None,
    }
    assert parameters["05_retrain"]["recipe"]["max_lr"] == 6e-4


def test_parts_are_set_in_what_the_profile_gives(notebooks: Path) -> None:
    parameters = planned(notebooks, "05.recipe.name=x", profile="paper")
    assert parameters["05_retrain"]["recipe"] == {"max_lr": 1e-5, "name": "x", "steps": {"first": 1}}


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
            "unknown parameter of --set 03_train: 'max_iters': did you mean 'max_iter'?",
        ),
        ("03.recpie.max_lr=5", "unknown parameter of --set 03_train: 'recpie': did you mean 'recipe'?"),
        ("03_trian.max_iter=5", "unknown stage '03_trian': did you mean '03_train'?"),
        ("max_iter=5", "--set 'max_iter=5' must look like 03_train.max_iter=100"),
        ("03.max_iter", "--set '03.max_iter' must look like 03_train.max_iter=100"),
        ("03.max_iter=fast", "--set 03_train.max_iter must be of type int (default 10), not 'fast'"),
        ("03.max_iter=1.5", "03_train.max_iter must be of type int (default 10), not 1.5"),
        ("03.max_iter=true", "03_train.max_iter must be of type int (default 10), not True"),
        ("03.max_iter=", "03_train.max_iter must be of type int (default 10), not None"),
        ("03.max_iter=null", "03_train.max_iter must be of type int (default 10), not None"),
        ("03.rate=quick", "03_train.rate must be of type float (default 0.5), not 'quick'"),
        ("03.rate=true", "03_train.rate must be of type float (default 0.5), not True"),
        ("03.flag=1", "03_train.flag must be of type bool (default False), not 1"),
        ("03.sizes=3", "03_train.sizes must be of type list (default [1, 2]), not 3"),
        ("03.sizes=(3, 4)", "03_train.sizes must be of type list (default [1, 2]), not '(3, 4)'"),
        ("03.recipe=fast", "03_train.recipe must be of type dict"),
        ("03.sizes=[3, 4", "--set '03.sizes=[3, 4': while parsing a flow sequence"),
        ("03.max_iter.x=1", "--set 03_train.max_iter.x: there is no 'x' in 10; set that as a whole"),
        (
            "03.recipe.max_lr.x=1",
            "--set 03_train.recipe.max_lr.x: there is no 'x' in 0.0006; set that as a whole",
        ),
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
        ("03_train: {max_iter: many}", "profile 'PATH', 03_train.max_iter must be of type int"),
        ("03_train: {max_iter: }", "03_train.max_iter must be of type int (default 10), not None"),
        ("03_train: {rate: 1e-5x}", "03_train.rate must be of type float"),
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


@pytest.mark.parametrize("path", sorted((names.NOTEBOOKS / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_of_the_kit_fits_its_notebooks(path: Path) -> None:
    assert tuple(profiles.plan(path.stem).parameters) == STAGES
