"""The checks that a reviewer would run by hand: lint, format, layers, notebooks without outputs, scripts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
SCRIPTS = ["run_all.sh", ".ci/run"]
METADATA = "metadata.papermill cell.metadata.papermill"


def check(*command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    check(PROGRAMS / "ruff", "check", "--no-cache", "--output-format", "concise", ".")


def test_everything_is_formatted():
    check(PROGRAMS / "ruff", "format", "--no-cache", "--check", "--output-format", "concise", ".")


def test_imports_keep_to_the_layers():
    check(PROGRAMS / "lint-imports", "--no-cache")


def test_notebooks_hold_no_outputs():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    check(PROGRAMS / "nbstripout", "--verify", "--keep-id", "--extra-keys", METADATA, *notebooks)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script):
    check("bash", "-n", script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    check("shellcheck", script)
