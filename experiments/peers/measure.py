"""Measure all tools on data sets, unattended: one after the other, each on one core, then compare them.

python experiments/peers/measure.py WORK --data nuclei=DIR sartorius=DIR --minutes 5 10 20 30

Minutes are CPU minutes of training. Every tool but the kit trains once, with a checkpoint at each of them;
the kit trains once for each, with its profile `cpu` shortened to that time. What is done is not done again,
so an interrupted call may be repeated; a tool that fails is told at the end, and the others go on.
Environments are made in ENVS, with the versions of requirements/: 8 GB. The kit's minutes are wall time:
nothing else should run on its core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import yaml
from compare import TOOLS, spent

from kitlib import files
from kitlib.kaggle import detectron2_wheel
from kitlib.stages import record

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROFILE = "cpu"
# The two Mask R-CNNs share one: PyTorch is large.
ENVIRONMENTS = {"cellpose": "cellpose", "stardist": "stardist", "torchvision": "torch", "detectron2": "torch"}
# CPU minutes that the whole profile takes for one fold, until a run has shown it.
FIRST_GUESS = 40.0


class Failed(Exception):
    """A command failed; its output is in a log."""


def call(command: Sequence[str | Path], log: Path) -> None:
    """Run a command on one thread, its output added to a log."""
    print(*command, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("a") as output:
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        raise Failed(f"{command[1]}, see {log}")


def python_of(tool: str, envs: Path) -> Path:
    """The interpreter of a tool's environment, which is made if it is not there."""
    name = ENVIRONMENTS[tool]
    python = envs / name / "bin" / "python"
    made = envs / f"{name}.made"
    if not made.exists():
        venv.create(envs / name, with_pip=True, clear=True)
        requirements = HERE / "requirements" / f"{name}.txt"
        command = [python, "-m", "pip", "install", "--no-compile", "--requirement", requirements]
        if name == "torch":
            wheels = files.make_folder(envs / "wheels")
            call([sys.executable, "-m", detectron2_wheel.__name__, wheels], envs / f"{name}.log")
            command += ["--find-links", wheels]
        call(command, envs / f"{name}.log")
        made.touch()
    return python


def measure_tool(tool: str, folder: Path, envs: Path, minutes: Sequence[float]) -> None:
    """Train a tool and predict with its checkpoints."""
    command = [python_of(tool, envs), HERE / f"run_{tool}.py", folder / "data", folder / tool, "--minutes"]
    call([*command, *(f"{each:g}" for each in minutes)], folder / f"{tool}.log")


def measure_kit(data: Path, folder: Path, minutes: Sequence[float]) -> None:
    """Train fold 0 with the profile for each of the minutes, from the fewest, whose pace sizes the next."""
    pace = FIRST_GUESS
    for each in minutes:
        run = folder / f"kitlib-{each:g}"
        command = [
            sys.executable,
            "-m",
            "kitlib.cli",
            "run",
            "--profile",
            PROFILE,
            "--gpus",
            "0",
            "--to",
            "03",
        ]
        stages = run / "03_train"
        if not record.has_results(stages):
            settings = [part for value in shortened(each / pace) for part in ("--set", value)]
            call([*command, "--data", data, "--out", run, *settings], folder / "kitlib.log")
        trained = record.read(stages).parameters["max_iter"] / _profile()["03_train"]["max_iter"]
        pace = spent(run)["cpu_minutes"] / trained


def shortened(factor: float) -> list[str]:
    """The settings that make the profile's trainings so many times as long, on fold 0."""
    settings = ["03.fold=0"]
    for stage, values in _profile().items():
        if stage in ("02_pretrain_livecell", "03_train"):
            settings.append(f"{stage}.max_iter={_times(values['max_iter'], factor)}")
        phases = values.get("phases", []) if stage == "03_train" else []
        for phase in phases:
            if "max_iter" in phase:
                phase["max_iter"] = _times(phase["max_iter"], factor)
        if phases:
            settings.append(f"{stage}.phases={yaml.safe_dump(phases, default_flow_style=True).strip()}")
    return settings


def _times(iterations: int, factor: float) -> int:
    return max(round(iterations * factor), 20)


def _profile() -> dict:
    return yaml.safe_load((ROOT / "notebooks" / "profiles" / f"{PROFILE}.yaml").read_text("utf-8"))


def main() -> None:
    """Measure, and compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path)
    options.add_argument("--data", nargs="+", required=True, help="NAME=FOLDER of data that the kit reads")
    options.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20, 30])
    options.add_argument("--tools", nargs="+", choices=[*TOOLS, "kitlib"], default=[*TOOLS, "kitlib"])
    options.add_argument("--envs", type=Path, help="left out: WORK/envs")
    options.add_argument("--core", type=int, default=0, help="the core to run on")
    given = options.parse_args()
    os.sched_setaffinity(0, {given.core})
    envs = files.make_folder((given.envs or given.work / "envs").resolve())
    failed = []
    for name, data in (item.split("=", 1) for item in given.data):
        folder = files.make_folder((given.work / name).resolve())
        if not (folder / "data" / "split.json").exists():
            call(
                [sys.executable, HERE / "prepare.py", Path(data).resolve(), folder / "data"],
                folder / "data.log",
            )
        for tool in given.tools:
            try:
                if tool == "kitlib":
                    measure_kit(Path(data).resolve(), folder, sorted(given.minutes))
                else:
                    measure_tool(tool, folder, envs, sorted(given.minutes))
            except Failed as error:
                failed.append(str(error))
    call([sys.executable, HERE / "compare.py", given.work.resolve()], given.work / "compare.log")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
