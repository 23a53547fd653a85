"""The checks that a reviewer would run: lint, format, layers, types, notebooks without outputs, scripts."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
SCRIPTS = ["run_all.sh", ".ci/run"]
REPOSITORIES = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = {hook["id"]: hook for repository in REPOSITORIES for hook in repository["hooks"]}


def check(*command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ruff", "ruff-format", "import-linter", "mypy", "nbstripout"])
def test_the_checks_before_a_commit_pass(name):
    hook = HOOKS[name]
    program, *arguments = shlex.split(hook["entry"])
    check(PROGRAMS / program, *arguments, *files_for(hook))


def files_for(hook):
    """The files that a hook is given: none, or those that its pattern matches."""
    if not hook.get("pass_filenames", True):
        return []
    names = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*")]
    found = [name for name in names if re.search(hook["files"], name)]
    assert found
    return found


@pytest.mark.parametrize(("length", "refused"), [(71, False), (72, True)])
def test_a_long_subject_is_refused(length, refused):
    message = "x" * length + "\n\n" + "a longer body " * 20
    assert bool(re.search(HOOKS["subject"]["entry"], message)) == refused


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script):
    check("bash", "-n", script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    check("shellcheck", script)
