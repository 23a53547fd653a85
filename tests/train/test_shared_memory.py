"""Trainings where /dev/shm is smaller than in a container, in a mount namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kitlib import config as configs
from kitlib.inputs.config import AugmentConfig
from kitlib.runtime import launch
from kitlib.train import events

ROOT = Path(launch.__file__).parents[2]


def in_container(megabytes: float, code: str, *arguments: str) -> str:
    """What Python code prints where /dev/shm is a tmpfs of so many MB."""
    size = int(megabytes * 2**20)
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    prefix = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "sh", "-c", mount, "sh", "true"]).returncode
    ):
        pytest.skip("unshare may not make a mount namespace here")
    command = [*prefix, "sh", "-c", mount, "sh", sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TRAIN = """
import sys
from kitlib import config, train
train.run(config.load(train.TrainConfig, sys.argv[1]), processes=2)
"""


@pytest.mark.slow
def test_two_processes_with_workers_train(make_config, tmp_path):
    # As tensors of three channels, what the workers read ahead would be 5 MB.
    augment = AugmentConfig(scale=(3, 3), crop=(320, 320))
    fields = {"max_iter": 2, "val": "", "workers": 1, "images_per_batch": 4, "augment": augment}
    job = configs.save(make_config(**fields), tmp_path / "job.yaml")
    in_container(1, TRAIN, str(job))
    assert [row["iteration"] for row in events.read(tmp_path / "out") if "total_loss" in row] == [1, 2]


@pytest.mark.parametrize(("megabytes", "gpus", "disabled"), [(64, 2, True), (64, 1, False), (1024, 2, False)])
def test_nccl_does_without_a_small_shared_memory(megabytes, gpus, disabled):
    code = f"from kitlib.runtime import launch; print(launch._shared_memory({gpus}))"
    said = in_container(megabytes, code)
    assert ("{'NCCL_SHM_DISABLE': '1'}" in said) == disabled
    assert ("/dev/shm has 64 MB free, too little for the traffic between 2 GPUs" in said) == disabled
    assert ("start the container with --shm-size=1g" in said) == disabled


def test_what_the_user_said_of_nccl_wins(monkeypatch):
    monkeypatch.setenv("NCCL_SHM_DISABLE", "0")
    monkeypatch.setattr(launch, "NCCL_BYTES", 1 << 80)
    assert launch._shared_memory(2) == {}
