"""The loop in one process: resuming, keeping the best, stopping early, giving up on losses that are NaN."""

import dataclasses
import math
import shutil

import pytest
import torch
from torch import nn

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.train import events, resume
from kitlib.train.build import build, build_loader
from kitlib.train.config import OptimConfig
from kitlib.train.schedule import ScheduleConfig, lr_at
from kitlib.train.trainer import Trainer


def losses(folder):
    return [row["total_loss"] for row in events.read(folder) if "total_loss" in row]


@pytest.mark.slow
def test_a_resumed_training_is_the_unbroken_one(make_config, alone, tmp_path):
    config = make_config(max_iter=8, checkpoint_every=4, ema_decay=0.9)
    reached = build(config, alone).run()
    unbroken = tmp_path / "out"
    assert reached["iteration"] == 8
    resumed = tmp_path / "resumed"
    shutil.copytree(unbroken, resumed)
    last = resume.last(resumed)
    last.write_bytes(last.read_bytes()[:5000])  # cut short: the one of iteration 4 is what is left
    torch.manual_seed(12345)
    # What says how fast it goes, "try fewer workers" say, may change meanwhile.
    speed = {"workers": 1, "checkpoint_every": 3, "memory_format": "channels_last"}
    again = build(make_config(max_iter=8, ema_decay=0.9, out=str(resumed), **speed), alone).run()
    assert again["map"] == reached["map"]
    assert losses(resumed) == pytest.approx(losses(unbroken), abs=1e-6)
    notes = [row["note"] for row in events.read(resumed) if "note" in row]
    assert notes == ["last.pth is damaged or cut short: going on from previous.pth"]
    assert [row["iteration"] for row in events.read(resumed) if "total_loss" in row] == list(range(1, 9))
    one, two = (torch.load(f / "weights_last.pth", weights_only=True)["model"] for f in (unbroken, resumed))
    assert max(float((one[k].float() - two[k].float()).abs().max()) for k in one) < 1e-6
    rates = [row["lr"] for row in events.read(unbroken) if "lr" in row]
    assert rates == [lr_at(config.schedule, t, 8) for t in range(8)]


def test_a_scale_for_a_type_that_there_is_not(make_config, frames, alone):
    config = make_config(augment=AugmentConfig(scale_by_type={"drak": (0.5, 1.0)}))
    with pytest.raises(KitError, match=r"type in augment.scale_by_type: 'drak': did you mean 'dark'"):
        build_loader(config, alone, frames)
    line = [dataclasses.replace(frame, category="A172") for frame in frames]  # all cells one class, by lines
    lines = make_config(augment=AugmentConfig(scale_by_type={"A172": (0.5, 1.0)}))
    assert build_loader(lines, alone, line)


class Toy(nn.Module):
    """Learns nothing in particular; NaN on the iterations it is told."""

    def __init__(self, bad=()):
        super().__init__()
        self.weight, self.calls, self.bad = nn.Parameter(torch.ones(3)), 0, bad

    def forward(self, batch):
        self.calls += 1
        factor = math.nan if self.calls in self.bad else 1.0
        x = torch.stack([sample["image"] for sample in batch])
        return {"loss": ((x * self.weight).sum(1) ** 2).mean() * factor}


class Batches:
    """An endless loader of random batches, with a sampler's state."""

    def __init__(self):
        self.sampler, self.position = self, 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]

    def __iter__(self):
        while True:
            generator = torch.Generator().manual_seed(self.position)
            self.position += 1
            yield [{"image": torch.randn(3, generator=generator), "image_id": f"im{self.position}"}]


@pytest.fixture
def make_trainer(make_config, alone):
    def make(scores=None, bad=(), data="", **fields):
        defaults = {
            "optim": OptimConfig("sgd"),
            "schedule": ScheduleConfig(max_lr=0.01),
            "images_per_batch": 1,
        }
        given = iter(scores or ())
        evaluate = (lambda model: {"map": next(given)}) if scores is not None else None
        return Trainer(make_config(**defaults | fields), alone, Toy(bad), Batches(), evaluate, data)

    return make


def test_the_best_weights_are_kept_and_patience_ends(make_trainer, tmp_path):
    trainer = make_trainer([0.1, 0.3, 0.2, 0.25, 0.9], max_iter=50, eval_every=2, patience=2)
    assert trainer.run() == {"iteration": 8, "map": 0.3, "best_iteration": 4}
    best = torch.load(tmp_path / "out/weights_best.pth", weights_only=True)
    assert (best["iteration"], best["map"], best["categories"]) == (4, 0.3, ["bright", "dark"])
    assert best["model_config"]["preset"] == "tiny"
    last = torch.load(tmp_path / "out/weights_last.pth", weights_only=True)
    assert not torch.equal(best["model"]["weight"], last["model"]["weight"])
    rows = events.read(tmp_path / "out")
    assert [r["map"] for r in rows if "map" in r] == [0.1, 0.3, 0.2, 0.25]
    assert "stopped early" in rows[-1]["note"]
    # Run again it is still over.
    assert make_trainer([], max_iter=50, eval_every=2, patience=2).run()["iteration"] == 8


def test_the_last_iteration_is_evaluated_and_all_is_self_describing(make_trainer, tmp_path):
    assert make_trainer([0.5], max_iter=5).run() == {"iteration": 5, "map": 0.5, "best_iteration": 5}
    state = torch.load(resume.last(tmp_path / "out"), weights_only=True)
    assert state["iteration"] == 5
    assert {"format", "model", "model_config", "categories", "training"} <= set(state)
    training = state["training"]
    assert training["config"]["max_iter"] == 5
    assert {"model", "average", "random", "sampler", "step", "data", "best"} <= set(training)
    assert configs.read_yaml(tmp_path / "out/config.yaml") == training["config"]


def test_notes_are_said_once(make_trainer, tmp_path):
    trainer = make_trainer(max_iter=2)
    trainer.notes = ["load a backbone"]
    trainer.run()
    assert [r["note"] for r in events.read(tmp_path / "out") if "note" in r] == ["load a backbone"]
    assert events.curves(tmp_path / "out")["iteration"].tolist() == [1, 2]


def test_without_evaluation_the_last_weights_are_the_result(make_trainer, tmp_path):
    assert make_trainer(max_iter=3).run() == {"iteration": 3, "map": None, "best_iteration": None}
    assert not (tmp_path / "out/weights_best.pth").exists()


def test_the_averaged_weights_are_evaluated_and_kept(make_trainer, tmp_path):
    seen = []
    trainer = make_trainer([], max_iter=10, ema_decay=0.5)
    trainer.evaluate = lambda model: seen.append(model) or {"map": 0.5}
    trainer.run()
    assert seen[0] is trainer.average.model
    kept = torch.load(tmp_path / "out/weights_last.pth", weights_only=True)["model"]["weight"]
    assert torch.equal(kept, trainer.average.model.weight)
    assert not torch.equal(kept, trainer.model.weight)
    last = resume.load(tmp_path / "out").checkpoint
    assert torch.equal(last.tensors["weight"], kept)
    assert torch.equal(last.training["model"]["weight"], trainer.model.weight)


def test_a_loss_that_is_no_number_is_reported_and_skipped(make_trainer, tmp_path):
    make_trainer(max_iter=6, bad=(3,)).run()
    rows = events.read(tmp_path / "out")
    note = next(r for r in rows if "note" in r)
    assert note["skipped"] == ["im3"]
    assert "not a number on the images im3: step skipped, 1 of the last 3" in note["note"]
    assert [r["total_loss"] is None for r in rows if "total_loss" in r] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_too_many_of_them_end_the_training_before_a_checkpoint(make_trainer, tmp_path):
    bad = range(5, 40, 2)
    with pytest.raises(
        KitError, match=r"images im25: step skipped, 11 of the last 25.*max_lr.*to begin anew"
    ):
        make_trainer(max_iter=40, bad=bad, checkpoint_every=4).run()
    assert resume.load(tmp_path / "out").checkpoint.iteration == 24


def test_weights_that_are_not_finite_are_never_kept(make_trainer, tmp_path):
    trainer = make_trainer(max_iter=4)
    trainer.model.register_parameter("beside", nn.Parameter(torch.tensor([math.inf])))
    trainer.step = lambda batch: __import__("kitlib.train.step", fromlist=["Outcome"]).Outcome(
        {"loss": 1.0}, 1.0, True
    )
    trainer.step.optimizer = torch.optim.SGD([trainer.model.weight], 0.1)
    with pytest.raises(KitError, match="no longer finite at iteration 4; no checkpoint was written"):
        trainer.run()
    assert not resume.exists(tmp_path / "out")


def test_a_changed_training_is_refused_and_nothing_is_lost(make_trainer, tmp_path):
    make_trainer(max_iter=3, data="one").run()
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with pytest.raises(KitError, match=r"seed: 0 -> 1"):
        make_trainer(max_iter=3, data="one", seed=1).run()
    with pytest.raises(KitError, match="the frames"):
        make_trainer(max_iter=3, data="two").run()
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_a_training_may_be_made_longer(make_trainer, tmp_path):
    make_trainer(max_iter=3).run()
    assert make_trainer(max_iter=6).run()["iteration"] == 6
    longer = losses(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    make_trainer(max_iter=6).run()
    assert losses(tmp_path / "out") == pytest.approx(longer, abs=1e-7)


def test_a_training_goes_on_from_a_checkpoint_of_the_first_version(make_trainer, tmp_path):
    """It had no format, and what a training is resumed from lay beside the tensors."""
    make_trainer([0.4], max_iter=3, ema_decay=0.5).run()
    last = resume.last(tmp_path / "out")
    content = torch.load(last, weights_only=True)
    described = {name: content[name] for name in ("model_config", "categories", "iteration")}
    torch.save(described | content["training"] | {"ema": content["model"]}, last)
    continued = make_trainer([0.3], max_iter=6, ema_decay=0.5)
    assert continued.run() == {"iteration": 6, "map": 0.4, "best_iteration": 3}
    shutil.rmtree(tmp_path / "out")
    unbroken = make_trainer([0.3], max_iter=6, ema_decay=0.5)
    unbroken.run()
    assert torch.equal(continued.model.weight, unbroken.model.weight)
    assert torch.equal(continued.average.model.weight, unbroken.average.model.weight)
