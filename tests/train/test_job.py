"""Whole trainings in child processes: one and two, and one that is killed."""

import itertools
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kitlib import config as configs
from kitlib import files, train
from kitlib.errors import KitError
from kitlib.runtime import cluster, launch
from kitlib.train import events, job, resume
from kitlib.train.build import build
from kitlib.train.config import OptimConfig
from kitlib.train.schedule import ScheduleConfig

pytestmark = pytest.mark.slow

# Trainings one after the other, in the kit's own loader, steps and loop. The loss is a mean over images. With
# "norm" there is a BatchNorm over the images, with "faulty" process 1 gives up in iteration 5. It counts what
# the processes exchange.
TOY = """
import sys, torch
from collections import Counter
from pathlib import Path
from torch import distributed
from kitlib import config as configs, files
from kitlib.runtime import heartbeat, launch
from kitlib.train.build import build_loader
from kitlib.train.config import TrainConfig
from kitlib.train.processes import join
from kitlib.train.trainer import Trainer
from kitlib.records import read_frames

class Toy(torch.nn.Module):
    def __init__(self, rank, kind):
        super().__init__()
        torch.manual_seed(rank)  # made equal by the processes, or else different
        self.layer = torch.nn.Conv2d(1, 2, 3).double()
        self.norm = torch.nn.SyncBatchNorm(2).double() if kind == "norm" else torch.nn.Identity()
        self.calls, self.faulty = 0, 5 if kind == "faulty" and rank == 1 else None
    def forward(self, batch):
        self.calls += 1
        if self.calls == self.faulty:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        x = torch.stack([s["image"].double() / 255 for s in batch])
        loss = (self.norm(self.layer(x)).tanh().mean((1, 2, 3)) - 0.3).square().mean()
        return {"loss_a": loss / 4, "loss_b": 3 * loss / 4}

calls = Counter()

def count(name):
    original = getattr(distributed, name)
    def call(*arguments, **options):
        calls[name] += 1
        return original(*arguments, **options)
    setattr(distributed, name, call)

def train(config, here, kind):
    model = here.fit_batch_norm(Toy(here.rank, kind))
    trainer = Trainer(config, here, model, build_loader(config, here, read_frames(config.train)))
    backward = trainer.step._backward
    def watched(batch):
        losses = backward(batch)
        calls["waits"] += heartbeat._progress.waits
        return losses
    trainer.step._backward = watched
    calls.clear()
    trainer.run()
    files.write_json(Path(config.out) / f"calls{here.rank}.json", calls)

def main():
    with join() as here:
        for name in ("all_reduce", "all_gather_object"):
            count(name)
        for path in sys.argv[1:]:
            train(configs.load(TrainConfig, path), here, Path(path).stem)

launch.child(main)
"""


@pytest.fixture(autouse=True)
def _little_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def column(folder, key):
    return [row[key] for row in events.read(folder) if key in row]


@pytest.fixture(scope="module")
def toys(make_config_in, tmp_path_factory):
    """Trains the toy for 12 iterations of 4 images; the results by processes, kind and pieces of a batch.

    With one process, and with two, all kinds in one launch.
    """
    folder = tmp_path_factory.mktemp("toys")
    (folder / "kit_toy.py").write_text(TOY)
    fields = {"max_iter": 12, "images_per_batch": 4, "val": ""}
    recipe = {"optim": OptimConfig(), "schedule": ScheduleConfig(max_lr=0.1)}
    found = {}
    for processes, kinds in {1: ("norm",), 2: ("norm", "faulty")}.items():
        jobs = []
        for kind, accumulate in itertools.product(kinds, (1, 2)):
            found[processes, kind, accumulate] = out = folder / f"{processes}-{kind}-{accumulate}"
            config = make_config_in(folder, out=str(out), accumulate=accumulate, **fields, **recipe)
            jobs.append(str(configs.save(config, out / f"{kind}.yaml")))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(folder))
            patch.setenv("OMP_NUM_THREADS", "1")
            launch.launch("kit_toy", jobs, folder, processes=processes)
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_do_what_one_does_with_the_whole_batch(toys, accumulate):
    runs = [toys[processes, "norm", accumulate] for processes in (1, 2)]
    losses = [column(out, "total_loss") for out in runs]
    assert len(losses[0]) == 12
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert column(runs[1], "loss_a") == pytest.approx([loss / 4 for loss in losses[0]], abs=1e-7)
    assert column(runs[0], "grad_norm") == pytest.approx(column(runs[1], "grad_norm"), rel=1e-5)
    one, two = (torch.load(out / "weights_last.pth", weights_only=True)["model"] for out in runs)
    assert torch.allclose(one["layer.weight"], two["layer.weight"], atol=1e-7)
    # Objects are gathered once to resume and once to save. An iteration sums BatchNorm's gradients for each
    # piece, and averages all gradients and the losses once; for the gradients it waits.
    exchanged = {"all_gather_object": 2, "all_reduce": 12 * (accumulate + 2), "waits": 12}
    assert files.read_json(runs[1] / "calls0.json") == files.read_json(runs[1] / "calls1.json") == exchanged
    assert files.read_json(runs[0] / "calls0.json") == {"waits": 0}


def test_a_process_whose_model_gives_up_stops_no_other(toys):
    rows = events.read(toys[2, "faulty", 1])
    (note,) = [row for row in rows if "note" in row]
    assert (note["iteration"], len(note["skipped"])) == (5, 2)  # its half of the batch
    assert "step skipped, 1 of the last 5" in note["note"]
    found = [row["total_loss"] for row in rows if "total_loss" in row]
    assert [loss is None for loss in found] == [number == 5 for number in range(1, 13)]


def test_two_trainings_side_by_side_end_as_alone_and_again(make_config, alone, tmp_path):
    config = make_config(max_iter=3, eval_every=2)
    other = replace(config, out=str(tmp_path / "other"), seed=1)
    results = train.run_all([config, other], at_once=2)
    assert [result.metrics.parent.name for result in results] == ["out", "other"]
    for result in results:
        assert result.iteration == 3
        assert 0 <= result.map <= 1
        for path in (result.best, result.last, result.metrics, result.curves, result.log):
            assert path.is_file(), path
    assert column(tmp_path / "out", "iteration")[-1] == 3
    assert {"map", "map/bright", "eval_seconds"} <= set(events.read(tmp_path / "out")[-1])
    row = next(r for r in events.read(tmp_path / "out") if "total_loss" in r)
    assert {"loss_mask_stage0", "loss_mask_stage2", "lr", "images_per_s", "data_seconds", "host_gib"} <= set(
        row
    )
    build(replace(config, out=str(tmp_path / "alone")), alone).run()
    assert column(tmp_path / "out", "total_loss") == pytest.approx(column(tmp_path / "alone", "total_loss"))
    assert column(tmp_path / "out", "total_loss") != column(tmp_path / "other", "total_loss")
    with pytest.raises(KitError, match=r"images_per_batch: 2 -> 4"):
        build(make_config(max_iter=3, eval_every=2, images_per_batch=4), alone).run()


def test_each_training_sees_gpus_of_its_own(make_config, tmp_path, monkeypatch):
    """Six GPUs for two trainings at once; four images a batch can be shared by two of three GPUs."""
    seen = []
    monkeypatch.setattr(job, "gpu_count", lambda *_: 6)
    monkeypatch.setattr(job, "_result", lambda out: out)
    monkeypatch.setattr(
        launch, "launch", lambda *_, gpus, place, **__: seen.append((gpus, place.visible(gpus)))
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folds = [make_config(out=str(tmp_path / str(n)), images_per_batch=4) for n in range(2)]
    train.run_all(folds, gpus=-1, at_once=2)
    assert sorted(seen) == [(2, "0,1"), (2, "2,3")]


def test_on_a_cluster_each_training_has_all_gpus_that_it_asks_for(make_config, tmp_path, monkeypatch):
    """Ray itself runs them side by side."""
    seen = []
    monkeypatch.setattr(job, "gpu_count", lambda *_: 8)
    monkeypatch.setattr(job, "_result", lambda out: out)
    monkeypatch.setattr(cluster, "is_chosen", lambda: True)
    monkeypatch.setattr(cluster, "run", lambda jobs, gpus, processes: seen.append((len(jobs), gpus)))
    folds = [make_config(out=str(tmp_path / str(n)), images_per_batch=8) for n in range(2)]
    train.run_all(folds, gpus=8, at_once=2)
    assert seen == [(2, 8)]


@pytest.mark.parametrize(
    ("last", "at_once", "name"),
    [("", 1, "fold_1"), ("", 2, "fold_1"), ("finetune", 1, "fold_1/finetune"), (None, 1, "")],
)
def test_an_error_says_which_of_several_trainings_it_stopped(
    make_config, tmp_path, monkeypatch, last, at_once, name
):
    """``last`` lies in the fold's folder; None: a single training runs, and its error is left alone."""

    def fail_in_the_second(module, args, out, *, place, **_):
        if "fold_1" in str(out):
            raise launch.Died("the weights are no longer finite at iteration 3")
        assert place is None or place.stop.wait(20)

    monkeypatch.setattr(launch, "launch", fail_in_the_second)
    numbers = [1] if last is None else [0, 1]
    jobs = [make_config(out=str(tmp_path / f"fold_{n}" / (last or ""))) for n in numbers]
    with pytest.raises(launch.Died) as stopped:
        train.run_all(jobs, at_once=at_once)
    assert str(stopped.value) == f"{name}: the weights are no longer finite at iteration 3".removeprefix(": ")


def test_force_leaves_what_is_not_the_trainings(make_config, tmp_path):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    kept = [out / "train.npz", out / "fold_0" / "metrics.jsonl"]
    for path in (*kept, resume.last(out), out / "metrics.jsonl", out / "weights_best.pth"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    job.clear(out)
    assert sorted(p for p in out.rglob("*") if p.is_file()) == sorted(kept)


# Starts what follows it once on each of two hosts, both of which are this one.
STARTER = """
import subprocess, sys
started = [subprocess.Popen(sys.argv[1:]) for _ in range(2)]
sys.exit(max(process.wait() for process in started))
"""


def test_hosts_are_joined_by_torchruns_variables_and_a_starter(make_config, tmp_path, monkeypatch):
    """As a job of SLURM does. Of the one frame to evaluate on the second process has none, both go on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "starter.py").write_text(STARTER)
    hosts = {"NNODES": "2", "RDZV_BACKEND": "c10d", "RDZV_ENDPOINT": f"127.0.0.1:{port}"}
    for name, value in hosts.items():
        monkeypatch.setenv(f"PET_{name}", value)
    monkeypatch.setenv("KIT_ON_EACH_HOST", f"{sys.executable} '{tmp_path / 'starter.py'}'")
    assert train.run(make_config(max_iter=2, eval_every=1)).iteration == 2
    assert len(column(tmp_path / "out", "map")) == 2
    state = torch.load(resume.last(tmp_path / "out"), weights_only=True)
    assert len(state["training"]["random"]) == 2
    assert state["training"]["sampler"] == {"position": 4}


def workers(out: Path) -> dict[int, int]:
    """Process ids of a training's processes, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = dict(part.split(b"=", 1) for part in path.read_bytes().split(b"\0") if b"=" in part)
        except OSError:
            continue
        if environment.get(b"KIT_ERROR_FILE", b"").startswith(bytes(out)) and b"RANK" in environment:
            found[int(environment[b"RANK"])] = int(path.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_killed_process_ends_the_training_and_it_goes_on_from_its_checkpoint(make_config, alone, tmp_path):
    out = tmp_path / "out"
    config = make_config(max_iter=100_000, checkpoint_every=2, schedule=ScheduleConfig(), val="")

    def kill():
        while not resume.exists(out):
            time.sleep(0.05)
        os.kill(workers(out)[1], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.raises(KitError, match=r"process 1 was killed by SIGKILL.*log\.txt"):
        train.run(config, processes=2)
    thread.join(10)
    assert workers(out) == {}
    done = resume.load(out).checkpoint.iteration
    assert done >= 2
    resumed = make_config(max_iter=done + 1, checkpoint_every=2, schedule=ScheduleConfig(), val="")
    assert build(resumed, alone).run()["iteration"] == done + 1  # with one process now
    iterations = [r["iteration"] for r in events.read(out) if "total_loss" in r]
    assert iterations == list(range(1, done + 2))
    assert any("begun with 2 processes" in r.get("note", "") for r in events.read(out))
