"""run_all.sh: the real script over a stand-in python3, which keeps what it is asked for."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kitlib import cli

ROOT = Path(__file__).parents[2]

RECIPE = (  # what .venv is made from
    "constraints.txt",
    "pyproject.toml",
    "kitlib/kaggle/detectron2_wheel.py",
)

PYTHON = r"""#!/usr/bin/env bash
# A python3 that writes down what it is asked to do. The test's folder is $FAKE.
echo "$*" >>"$FAKE/log"
case "$*" in
"-c import ensurepip"*) exit 0 ;;
"-c "*) [[ ! -f "$FAKE/broken" ]] ;;
--version) echo "Python 3.11.9" ;;
"-m kitlib.runtime.environment") [[ -f "$FAKE/satisfied" ]] ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$FAKE/bin/python3" "$3/bin/python" ;;
"-m kitlib.kaggle.detectron2_wheel "*) ;;
"-m pip install "*)
    if [[ -f "$FAKE/slow" ]]; then touch "$FAKE/at-work"; sleep "$(<"$FAKE/slow")"; fi
    if [[ -f "$FAKE/failure" ]]; then cat "$FAKE/failure" >&2; exit 1; fi
    ;;
*) printf 'ran:'; printf ' <%s>' "$@"; echo ;;
esac
"""


class Project:
    """A folder with the real run_all.sh and a PATH where python3 is the stand-in."""

    def __init__(self, folder):
        self.folder, self.fake = folder / "a project", folder / "fake"
        (self.folder / "kitlib" / "kaggle").mkdir(parents=True)
        for name in RECIPE:
            (self.folder / name).write_text("1\n")
        shutil.copy(ROOT / "run_all.sh", self.folder)
        (self.fake / "bin").mkdir(parents=True)
        (self.fake / "bin" / "python3").write_text(PYTHON)
        (self.fake / "bin" / "python3").chmod(0o755)
        self.environment = {"PATH": f"{self.fake / 'bin'}:/usr/bin:/bin", "FAKE": str(self.fake)}

    def start(self, *arguments, **options):
        command = [self.folder / "run_all.sh", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, **pipes, **options)

    def call(self, *arguments):
        process = self.start(*arguments)
        out, error = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def asked(self):
        """What the stand-in was asked to do since the last time."""
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def set(self, name, text=""):
        (self.fake / name).write_text(text)

    def wait_for(self, name):
        for _ in range(500):
            if (self.fake / name).exists():
                return
            time.sleep(0.02)
        raise TimeoutError(name)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def installs(lines):
    return [text for text in lines if text.startswith("-m pip install")]


def venvs(lines):
    return [text for text in lines if text.startswith("-m venv")]


def test_first_call_sets_up_and_runs_and_the_second_only_runs(project):
    first = project.call("--set", "03_train.max_iter=100", "--data", "my data")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "ran: <-m> <kitlib.cli> <run> <--set> <03_train.max_iter=100> <--data> <my data>\n"
    asked = project.asked()
    assert len(venvs(asked)) == 1
    assert "--constraint .venv/constraints.txt" in installs(asked)[-1]
    assert "index-url" not in installs(asked)[-1]
    assert (project.folder / ".venv" / "constraints.txt").read_text() == "1\n"

    second = project.call()
    assert second.stdout == "ran: <-m> <kitlib.cli> <run>\n"
    assert installs(project.asked()) == []


def test_tests_and_benchmarks_pass_their_arguments_on(project):
    assert project.call("test", "-k", "a b").stdout.endswith(
        " <--dist> <loadfile> <--no-loadscope-reorder> <-k> <a b>\n"
    )
    assert project.call("bench", "rle").stdout == "ran: <tests/benchmarks/run.py> <rle>\n"


PINS = """\
# torch is PyPI's
cuda-bindings==13.5.0 ; python_version >= '3.11'
nvidia-cublas==13.1.1.3
pytorch-lightning==2.0
torch==2.14.1
torchvision==0.29.1 ; python_version >= '3.10'
triton==3.8.0
"""


@pytest.mark.parametrize("build", ["cu126", "cpu"])
def test_another_build_of_pytorch_comes_from_its_index_with_its_own_pins(project, build):
    (project.folder / "constraints.txt").write_text(PINS)
    project.environment["KIT_TORCH"] = build
    done = project.call("setup")
    assert done.returncode == 0, done.stderr
    for line in installs(project.asked()):
        assert f"--extra-index-url https://download.pytorch.org/whl/{build} " in line
    assert (project.folder / ".venv" / "constraints.txt").read_text().splitlines() == [
        "# torch is PyPI's",
        "pytorch-lightning==2.0",
        f"torch==2.14.1+{build}",
        f"torchvision==0.29.1+{build} ; python_version >= '3.10'",
        "triton==3.8.0",
    ]
    assert ("about 3 GB" in done.stderr) == (build == "cpu")


def test_the_build_of_pytorch_stays_until_another_one_is_asked_for(project):
    project.environment["KIT_TORCH"] = "cu126"
    project.call("setup")
    del project.environment["KIT_TORCH"]
    project.asked()
    assert project.call("setup").returncode == 0
    assert installs(project.asked()) == []
    (project.folder / "constraints.txt").write_text("2\n")
    project.call("setup")  # brought up to date, with the same build
    asked = project.asked()
    assert not venvs(asked)
    assert "whl/cu126" in installs(asked)[-1]
    project.environment["KIT_TORCH"] = "default"
    project.call("setup")
    asked = project.asked()
    assert len(venvs(asked)) == 1
    assert "index-url" not in installs(asked)[-1]


def test_an_interrupted_set_up_goes_on_with_the_build_of_pytorch_that_was_asked_for(project):
    project.environment["KIT_TORCH"] = "cpu"
    project.set("failure", "ERROR: [Errno 28] No space left on device")
    assert project.call("setup").returncode == 1
    (project.fake / "failure").unlink()
    del project.environment["KIT_TORCH"]
    project.asked()
    assert project.call("setup").returncode == 0
    assert "whl/cpu" in installs(project.asked())[-1]


def test_a_build_of_pytorch_that_is_asked_for_is_not_looked_for_in_the_active_environment(project):
    project.set("satisfied")
    project.environment["KIT_TORCH"] = "cpu"
    assert project.call("setup").returncode == 0
    assert venvs(project.asked())


def test_an_unknown_build_of_pytorch_is_refused(project):
    project.environment["KIT_TORCH"] = "cu128"
    failed = project.call("setup")
    assert failed.returncode == 1
    assert "KIT_TORCH is 'cu128', but it may be default, cu126 or cpu" in failed.stderr
    assert project.asked() == []


@pytest.mark.parametrize("file", RECIPE)
def test_a_changed_recipe_brings_the_same_venv_up_to_date(project, file):
    project.call("setup")
    project.asked()
    (project.folder / file).write_text("2\n")
    assert project.call("setup").returncode == 0
    asked = project.asked()
    assert installs(asked)
    assert not venvs(asked)


def test_a_moved_project_is_brought_up_to_date(project):
    project.call("setup")
    project.asked()
    project.folder = project.folder.rename(project.folder.with_name("moved"))
    assert project.call("setup").returncode == 0
    assert installs(project.asked())


def test_a_broken_venv_is_built_anew(project):
    project.call("setup")
    project.asked()
    (project.folder / ".venv" / "bin" / "python").unlink()
    (project.folder / ".venv" / "left-over").touch()
    assert project.call("setup").returncode == 0
    assert venvs(project.asked())
    assert not (project.folder / ".venv" / "left-over").exists()


@pytest.mark.parametrize("already_set_up", [False, True])
def test_killed_while_installing_it_starts_over(project, already_set_up):
    if already_set_up:
        project.call("setup")
        (project.folder / "constraints.txt").write_text("2\n")
    project.set("slow", "60")
    killed = project.start("setup", start_new_session=True)
    project.wait_for("at-work")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (project.fake / "slow").unlink()
    project.asked()
    assert project.call("setup").returncode == 0
    assert venvs(project.asked())
    project.call("setup")
    assert installs(project.asked()) == []


def test_two_calls_at_once_set_up_once(project):
    project.set("slow", "0.5")
    one = project.start("setup")
    project.wait_for("at-work")
    two = project.call("setup")
    one.communicate()
    assert (one.returncode, two.returncode) == (0, 0)
    assert "waiting" in two.stderr
    assert len(venvs(project.asked())) == 1


def test_an_environment_that_has_all_is_used_as_it_is(project):
    project.set("satisfied")
    assert project.call("--force").stdout == "ran: <-m> <kitlib.cli> <run> <--force>\n"
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying ... NewConnectionError: [Errno -3] no name",
            "the package index cannot be reached",
        ),
        ("ERROR: [Errno 13] Permission denied: '/x'", "a folder cannot be written"),
        (
            "ERROR: No matching distribution found for torch==2.14.1+cu126",
            "PyTorch's index has no such build",
        ),
        ("Collecting pytest-timeout\nERROR: ResolutionImpossible", "the set-up failed for the reason above"),
    ],
)
def test_a_failed_install_is_explained_and_tried_again(project, failure, sentence):
    project.set("failure", failure)
    failed = project.call("setup")
    assert failed.returncode == 1
    assert failure in failed.stderr
    assert sentence in failed.stderr.splitlines()[-1]
    (project.fake / "failure").unlink()
    assert project.call("setup").returncode == 0


def test_without_a_python_it_says_what_to_install(project):
    tools = project.fake / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "flock", "env"):
        (tools / name).symlink_to(shutil.which(name))
    project.environment["PATH"] = str(tools)
    failed = project.call("setup")
    assert failed.returncode == 1
    assert "no Python from 3.10 on" in failed.stderr


def test_help_explains_all_without_setting_up(project):
    page = project.call("--help").stdout
    options = {option for parameter in cli.kit.commands["run"].params for option in parameter.opts}
    assert options >= {"--profile", "--set", "--force"}
    assert set(re.findall(r"--[a-z-]+", page)) == options | {"--help"}
    assert project.asked() == []


def test_an_unknown_command_is_refused(project):
    failed = project.call("tset")
    assert failed.returncode != 0
    assert "unknown command 'tset'" in failed.stderr
    assert project.asked() == []


def test_a_call_on_a_set_up_machine_sets_nothing_up():
    if not (ROOT / ".venv" / "set-up-is-whole").is_file() or Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the tests do not run in the .venv that run_all.sh made")
    done = subprocess.run([ROOT / "run_all.sh", "setup"], check=True, capture_output=True, text=True)
    assert done.stderr == f"run_all.sh: ready: {ROOT / '.venv/bin/python'}\n"
