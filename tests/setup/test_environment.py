"""pyproject.toml, environment.yml, constraints.txt and the imports of kitlib say the same."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kitlib.kaggle import detectron2_wheel
from kitlib.runtime.environment import unmet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

# Modules and conda packages that are not called what their distribution on PyPI is called.
MODULES = {
    "cv2": "opencv-python-headless",
    "mlflow": "mlflow-skinny",
    "pil": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
CONDA = {
    "jupyter_client": "jupyter-client",
    "playwright-python": "playwright",
    "py-opencv": "opencv-python-headless",
    "pytorch": "torch",
    "ray-core": "ray",
}

# Used all the same: as programs (kaggle needs six but does not say so), by detectron2 and torch, as a viewer.
NOT_IMPORTED = {"ipykernel", "ipywidgets", "jupyterlab", "kaggle", "six", "tensorboard", "torchvision"}
# What detectron2 brings along and what is used through it.
WITH_DETECTRON2 = {"fvcore", "iopath", "omegaconf", "yacs"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def needs(project):
    """Every requirement of pyproject.toml by name, extras too."""
    extras = [need for group in project["optional-dependencies"].values() for need in group]
    return by_name([*project["dependencies"], *extras])


def by_name(lines):
    return {canonicalize_name(need.name): need for need in map(Requirement, lines)}


def constraints(python="3.11"):
    lines = [text for text in (ROOT / "constraints.txt").read_text().splitlines() if not text.startswith("#")]
    environment = {"python_version": python}
    found = [
        need for need in map(Requirement, lines) if need.marker is None or need.marker.evaluate(environment)
    ]
    names = [canonicalize_name(need.name) for need in found]
    assert len(names) == len(set(names))
    return dict(zip(names, found, strict=True))


def conda_lines():
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def conda():
    found = {}
    for text in conda_lines():
        if isinstance(text, str):
            name, _, versions = text.partition(" ")
            versions = f"=={versions}" if versions[:1].isdigit() else versions
            found[CONDA.get(name, name)] = Requirement(f"{CONDA.get(name, name)}{versions}")
    # Those that conda-forge does not have; kitlib itself is the last one.
    return found | by_name(conda_lines()[-1]["pip"][:-1])


def imported():
    """Distributions that the modules of kitlib import, at their top or within a function."""
    found = set()
    for path in (ROOT / "kitlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    third_party = found - set(sys.stdlib_module_names) - {"kitlib"}
    return {canonicalize_name(MODULES.get(name.lower(), name)) for name in third_party}


def test_every_import_is_a_dependency(project):
    optional = project["optional-dependencies"]
    extras = {
        "detectron2",
        *(name for extra in ("coco", "own", "mlflow", "ray", "optuna") for name in by_name(optional[extra])),
    }
    declared = set(by_name(project["dependencies"])) | extras | WITH_DETECTRON2
    assert imported() - declared == set()


def test_every_dependency_is_used(project):
    notebooks = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb"))
    used = imported() | NOT_IMPORTED
    idle = {name for name in by_name(project["dependencies"]) if name not in used and name not in notebooks}
    assert idle == set()


def test_conda_environment_asks_for_the_same_versions(needs):
    environment = conda()
    assert set(environment) - {"python", "pip"} == set(needs)
    assert {n: environment[n].specifier for n in needs} == {n: need.specifier for n, need in needs.items()}


def test_conda_environment_says_why_and_ends_with_kitlib():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    bare = [text for text in lines if re.match(r"\s+- \w", text) and "#" not in text]
    assert bare == ["  - python >=3.10,<3.14", "  - pip:"]
    assert conda_lines()[-1]["pip"][-1] == "-e ."


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_pin_every_requirement_within_its_bounds(needs, python):
    pins = constraints(python)
    for name in set(needs) - {"detectron2"}:
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert needs[name].specifier.contains(pin.version), name


def test_torch_and_torchvision_are_the_pinned_pair():
    pins = constraints()
    assert str(pins["torch"].specifier) == "==2.14.1"
    assert str(pins["torchvision"].specifier) == "==0.29.1"


def test_detectron2_has_its_own_needs_pinned():
    wheel_needs = by_name(detectron2_wheel.REQUIRES)
    pins = constraints()
    assert set(wheel_needs) - set(pins) == set()
    assert all(
        need.specifier.contains(str(next(iter(pins[n].specifier)).version)) for n, need in wheel_needs.items()
    )


def test_unmet_names_what_is_absent_or_too_old():
    assert unmet(["pytest", "pytest>=1.0"]) == []
    assert unmet(["pytest>=9999"]) == ["pytest>=9999"]
    assert unmet(["no-such-distribution"]) == ["no-such-distribution"]


def test_unmet_heeds_markers_and_extras():
    lines = ["no-such-a; python_version < '3'", "no-such-b; extra == 'dev'"]
    assert unmet(lines) == []
    assert unmet(lines, extras=["dev"]) == ["no-such-b"]


def test_every_file_of_the_library_is_installed():
    """setuptools leaves out what is not Python and not listed; type checkers need py.typed."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {
        path
        for package, patterns in listed.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {path for path in (ROOT / "kitlib").rglob("*") if path.is_file()}
    assert {path for path in there if path.suffix not in (".py", ".pyc")} == installed
    assert ROOT / "kitlib" / "py.typed" in installed
