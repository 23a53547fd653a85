"""Runs in MLflow: in its files, and in a real server where there is one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
import pytest
from click.testing import CliRunner

from kitlib import files
from kitlib.cli import kit
from kitlib.errors import KitError
from kitlib.stages import tracking
from kitlib.stages.record import Record

needs_mlflow = pytest.mark.skipif(
    tracking.find_spec("mlflow") is None, reason="MLflow is not installed: pip install mlflow-skinny"
)
#: The program of a whole MLflow, which may lie in an environment of its own.
PROGRAM = os.environ.get("KIT_MLFLOW") or shutil.which("mlflow")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets there ends with it."""
    for name in (tracking._URI, *tracking._SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a finished training of one fold."""
    out = tmp_path / "outputs" / "demo run"
    stage = out / "03_train"
    table = {"iteration": [1, 2, 3], "total_loss": [3.0, 2.0, 1.0], "map": [None, None, 0.25]}
    (stage / "fold_0").mkdir(parents=True)
    pd.DataFrame(table).to_csv(stage / "fold_0" / "curves.csv", index=False)
    (stage / "fold_0" / "weights_best.pth").write_bytes(b"weights")
    (stage / "03_train.html").write_text("<p>")
    artefacts = ["fold_0/weights_best.pth", "away.csv"]
    metrics = {"map": 0.25, "by_type": {"cort": 0.5}, "accepted": True, "artefacts": artefacts}
    files.write_json(stage / "metrics.json", {"stage": "03_train", **metrics})
    given = {"max_iter": 3, "schedule": {"max_lr": 1e-3}, "note": "x" * 9000}
    Record("key", True, 1.0, given, profile="demo", machine={"GPUs": "none"}).save(stage)
    (out / "report.html").write_text("<p>")
    return out


def follow(run: Path) -> None:
    with tracking.track("mlflow", run) as after:
        after(run / "03_train")


def check(client, run: Path) -> None:
    """See that everything of the run is there, in two runs."""
    experiment = client.get_experiment_by_name("kitlib").experiment_id
    found = {each.info.run_name: each for each in client.search_runs([experiment])}
    parent, stage = found["demo run"], found["03_train"]
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {each.info.status for each in found.values()} == {"FINISHED"}
    assert stage.data.params["schedule.max_lr"] == "0.001"
    assert (stage.data.params["profile"], stage.data.params["GPUs"]) == ("demo", "none")
    assert len(stage.data.params["note"]) == 6000
    assert stage.data.metrics["by_type.cort"] == 0.5
    losses = client.get_metric_history(stage.info.run_id, "fold_0/total_loss")
    assert [(each.step, each.value) for each in losses] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [each.step for each in client.get_metric_history(stage.info.run_id, "fold_0/map")] == [3]
    kept = [each.path for each in client.list_artifacts(stage.info.run_id)]
    assert kept == ["03_train.html", "fold_0"]
    assert [f.path for f in client.list_artifacts(stage.info.run_id, "fold_0")] == ["fold_0/weights_best.pth"]
    assert [each.path for each in client.list_artifacts(parent.info.run_id)] == ["report.html"]


@needs_mlflow
def test_a_run_is_kept_in_files_beside_it(run: Path) -> None:
    from mlflow.tracking import MlflowClient

    follow(run)
    check(MlflowClient((run.parent / "mlruns").as_uri()), run)
    follow(run)
    experiment = MlflowClient((run.parent / "mlruns").as_uri()).get_experiment_by_name("kitlib")
    assert len(list((run.parent / "mlruns" / experiment.experiment_id).glob("*/meta.yaml"))) == 4


@needs_mlflow
def test_a_run_that_fails_is_marked_so(run: Path) -> None:
    from mlflow.tracking import MlflowClient

    def fail() -> None:
        with tracking.track("mlflow", run):
            raise KitError("03_train: no")

    with pytest.raises(KitError, match="03_train: no"):
        fail()
    client = MlflowClient((run.parent / "mlruns").as_uri())
    (parent,) = client.search_runs([client.get_experiment_by_name("kitlib").experiment_id])
    assert parent.info.status == "FAILED"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a real MLflow server with a database of its own."""
    if PROGRAM is None or subprocess.run([PROGRAM, "server", "--help"], capture_output=True).returncode:
        pytest.skip("no MLflow server: pip install mlflow, or name its program in KIT_MLFLOW")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, _, port = address.partition(":")
    store, kept = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "kept"
    command = [PROGRAM, "server", "--host", host, "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(kept)]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "server.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**plain, "DO_NOT_TRACK": "true"})
    try:
        wait_for(f"http://{address}/health", process, tmp_path / "server.txt")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 180
    while True:
        try:
            urlopen(address, timeout=10).close()
            return
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)


@needs_mlflow
@pytest.mark.slow
def test_a_run_is_kept_by_a_server(run: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    follow(run)
    check(MlflowClient(server), run)
    assert not (run.parent / "mlruns").exists()


@needs_mlflow
def test_a_server_that_cannot_be_reached_is_one_sentence_before_the_first_stage(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        KitError, match=r"^MLflow cannot be used at http://127\.0\.0\.1:9 \(.*\); see MLFLOW_"
    ):
        follow(run)


def test_a_missing_package_is_one_sentence_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    cells = tmp_path / "cells"
    (cells / "train").mkdir(parents=True)
    (cells / "train.csv").write_text("id\n")
    line = ["run", "--track", "mlflow", "--data", str(cells), "--out", str(tmp_path / "out")]
    with pytest.raises(KitError, match=r"that is not installed; run: .* -m pip install mlflow-skinny"):
        CliRunner().invoke(kit, line, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_nothing_is_imported_or_written_without_tracking(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from kitlib.stages import tracking\n"
    code += "with tracking.track(None, Path('nowhere')) as after: after(Path('nowhere/03_train'))\n"
    code += "assert 'mlflow' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(Path(tracking.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
