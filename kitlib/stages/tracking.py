"""Runs in MLflow, where people keep their experiments: parameters, curves, scores and files of each stage."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kitlib.errors import KitError
from kitlib.stages.report import runs, spared
from kitlib.stages.report.parameters import flat, shown
from kitlib.stages.report.runs import StageResults

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_EXPERIMENT = "kitlib"
_URI = "MLFLOW_TRACKING_URI"
#: Where the user has said nothing else: no telemetry, no minutes of trying to reach a server that is down,
#: and MLflow's store of plain files, the one that needs no database.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
# What MLflow takes in one call, and the longest text of a parameter.
_METRICS_AT_ONCE, _PARAMETERS_AT_ONCE, _LONGEST = 1000, 100, 6000
_FORBIDDEN = re.compile(r"[^\w\-./ :]")


@contextmanager
def track(tool: str | None, out: Path) -> Iterator[Callable[[Path], None]]:
    """While the block runs, a run of several stages is one parent run in MLflow, each stage a run within it.

    It goes where ``MLFLOW_TRACKING_URI`` says, else into files in ``mlruns`` beside the run's folder.

    Args:
        tool: "mlflow"; None: nothing is tracked.
        out: the run's folder.

    Yields:
        A function that is to be called with a stage's folder once the stage is done.

    Raises:
        KitError: MLflow is not installed, or its server cannot be reached; nothing was done.
    """
    if tool is None:
        yield lambda folder: None
        return
    client, parent = _begin(out)
    status = "FAILED"
    try:
        yield lambda folder: _log(client, parent, folder)
        status = "FINISHED"
    finally:
        with spared("the end of the run in MLflow"):
            report = out / "report.html"
            if report.is_file():
                client.log_artifact(parent.info.run_id, str(report))
            client.set_terminated(parent.info.run_id, status)


def _begin(out: Path) -> tuple[MlflowClient, Any]:
    """A client and the parent run, in MLflow's words."""
    if find_spec("mlflow") is None:
        raise KitError(
            "--track mlflow needs a package that is not installed; "
            f"run: {sys.executable} -m pip install mlflow-skinny"
        )
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    where = os.environ.get(_URI) or (out.parent / "mlruns").as_uri()
    try:
        client = MlflowClient(tracking_uri=where)
        known = client.get_experiment_by_name(_EXPERIMENT)
        experiment = known.experiment_id if known is not None else client.create_experiment(_EXPERIMENT)
        return client, client.create_run(experiment, run_name=out.name)
    except (MlflowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"MLflow cannot be used at {where} ({reason[:80]}); see {_URI}") from None


def _log(client: MlflowClient, parent: Any, folder: Path) -> None:
    """Write a finished stage into a run of its own within the parent run."""
    stage = next(stage for stage in runs.read(folder.parent).stages if stage.folder == folder)
    tags = {"mlflow.parentRunId": parent.info.run_id}
    run = client.create_run(parent.info.experiment_id, tags=tags, run_name=stage.name).info.run_id
    _log_parameters(client, run, stage)
    _log_metrics(client, run, [(name, value, 0) for name, value in _numbers(stage.metrics)])
    for path in sorted(folder.glob("**/curves.csv")):
        place = path.parent.relative_to(folder).as_posix()
        _log_metrics(client, run, list(_curve(path, "" if place == "." else f"{place}/")))
    for path in _artefacts(stage):
        place = path.parent.relative_to(folder).as_posix()
        client.log_artifact(run, str(path), None if place == "." else place)
    client.set_terminated(run)


def _log_parameters(client: MlflowClient, run: str, stage: StageResults) -> None:
    from mlflow.entities import Param

    record = stage.record
    found = {**flat(record.parameters), "profile": record.profile, **record.machine} if record else {}
    params = [Param(_allowed(name), shown(value)[:_LONGEST]) for name, value in found.items()]
    for start in range(0, len(params), _PARAMETERS_AT_ONCE):
        client.log_batch(run, params=params[start : start + _PARAMETERS_AT_ONCE])


def _log_metrics(client: MlflowClient, run: str, values: list[tuple[str, float, int]]) -> None:
    """Write names, values and steps."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(_allowed(name), value, now, step) for name, value, step in values]
    for start in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _METRICS_AT_ONCE])


def _numbers(metrics: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in flat(metrics).items():
        if isinstance(value, bool | int | float):
            yield name, float(value)


def _curve(path: Path, prefix: str) -> Iterator[tuple[str, float, int]]:
    """The values of a training's curves, each with its iteration."""
    table = pd.read_csv(path)
    for column in table.columns.drop("iteration"):
        for step, value in table[["iteration", column]].dropna().itertuples(index=False):
            yield f"{prefix}{column}", float(value), int(step)


def _artefacts(stage: StageResults) -> list[Path]:
    """The stage's files worth keeping: those that it names, its figures and its notebook to read."""
    named = [stage.folder / name for name in stage.metrics.get("artefacts", ())]
    found = [*named, *stage.figures, stage.folder / f"{stage.name}.html"]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return _FORBIDDEN.sub("_", name)
