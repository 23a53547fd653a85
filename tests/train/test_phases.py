"""Trainings in phases: what each trains with and begins with, and how it goes on when interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from kitlib import files
from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.stages import parameters, trainings
from kitlib.train import Phase, TrainConfig, events, in_phases, job
from kitlib.train.build import build
from kitlib.train.processes import Processes
from kitlib.train.schedule import lr_at
from kitlib.train.trainer import Trainer

PHASES = [
    {"max_iter": 2, "schedule": {"warmup_iters": 0}},
    {
        "max_iter": 2,
        "schedule": {"max_lr": 1e-3},
        "augment": {"scale": [1.5, 2.0]},
        "sampler": {"balance": 1},
    },
]


def training(**values: Any) -> parameters.Training:
    return parameters.read("03_train", {"phases": PHASES, **values})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, alone: Processes) -> Callable[..., dict[str, trainings.Trained]]:
    """``trainings.run`` with real trainings in this process, without children; what they started with."""

    def run_all(configs: list[TrainConfig], gpus: int, *, at_once: int, on_row: Any) -> list[job.Result]:
        for config in configs:
            files.write_json(Path(config.out) / job.RESULT, build(config, alone).run())
            for row in events.read(config.out) if on_row else ():
                on_row(row)
        return [job._result(config.out) for config in configs]

    monkeypatch.setattr(trainings.train, "run_all", run_all)
    return trainings.run


def test_a_phase_changes_what_it_names_and_nothing_else(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    first, second = in_phases(config, training().phases)
    assert first == replace(config, max_iter=2, schedule=replace(config.schedule, warmup_iters=0))
    assert second.schedule == replace(config.schedule, max_lr=1e-3)
    assert (second.max_iter, second.sampler.balance) == (2, 1.0)
    assert second.augment == replace(config.augment, scale=(1.5, 2.0))
    assert in_phases(config, []) == [config]


def test_scales_of_a_type_are_laid_over_those_of_other_types(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    config = replace(config, augment=replace(config.augment, scale_by_type={"dark": (1.0, 2.0)}))
    views = Phase(augment={"scale_by_type": {"bright": [2.0, 3.0]}}).within(config).augment
    assert views.scale_by_type == {"dark": (1.0, 2.0), "bright": (2.0, 3.0)}


def test_rates_go_through_all_phases(make_config: Callable[..., TrainConfig]) -> None:
    """Each phase has a whole cosine of its own length."""
    config = make_config()
    first, second = in_phases(config, training().phases)
    expected = [lr_at(first.schedule, t, 2) for t in range(2)] + [
        lr_at(second.schedule, t, 2) for t in range(2)
    ]
    assert trainings.rates(config, training()) == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"phases": [{"max_iters": 3}]},
            r"unknown key in 03_train.phases.0 'max_iters': did you mean 'max_iter'",
        ),
        ({"phases": [{}, {"max_iter": 0}]}, r"03_train.phases.1.max_iter must be at least 1, not 0"),
        (
            {"phases": [{"schedule": {"max_lrr": 1}}]},
            r"03_train.phases.0.schedule 'max_lrr': did you mean 'max_lr'",
        ),
        ({"phases": [{"schedule": {"max_lr": "x"}}]}, r"03_train.phases.0.schedule.max_lr must be a number"),
        (
            {"phases": [{"augment": {"crop": [0, 1]}}]},
            r"03_train.phases.0.augment.crop.0 must be above 0, not 0",
        ),
        (
            {"phases": [{"schedule": {"min_lr": 1}}]},
            r"03_train: phases.0.schedule: min_lr 1.0 must not be above",
        ),
        ({"phases": 3}, r"03_train.phases must be a list, not 3"),
        ({"phases": [3]}, r"03_train.phases.0 must be a section of keys and values, not 3"),
        ({"ensemble_phases": 3}, r"03_train: ensemble_phases 3 is more than the 2 of phases; lower it"),
        ({"ensemble_phases": 2, "phases": []}, r"ensemble_phases 2 is more than the 0 of phases"),
    ],
)
def test_what_phases_cannot_be_is_said_with_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(KitError, match=said):
        training(**values)


def test_each_phase_begins_with_the_weights_of_the_one_before(
    run: Callable[..., dict[str, trainings.Trained]], make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config, reported = make_config(out=str(tmp_path / "a"), val=""), []
    trained = run({"a": config}, training(), on_row=lambda row: reported.append(row["iteration"]))["a"]
    assert [result.iteration for result in trained.phases] == [2, 2]
    assert set(reported) == {1, 2, 3, 4}
    last = checkpoint.load(tmp_path / "a" / "phase_1" / "checkpoints" / "last.pth")
    assert last.training is not None
    assert last.training["config"]["weights"] == str(tmp_path / "a" / "phase_0" / "weights_last.pth")
    curves = trainings.curves(tmp_path / "a")
    assert curves["iteration"].tolist() == [1, 2, 3, 4]
    assert curves["lr"].tolist() == pytest.approx(trainings.rates(config, training()))


def test_the_last_phases_of_all_folds_come_first() -> None:
    """Where time is short, the first models predict alone."""
    done = {
        name: trainings.Trained(tuple(left(f"{name}/phase_{n}/weights_best.pth") for n in range(3)), 2)
        for name in ("fold_0", "fold_1")
    }
    assert trainings.weights(done, Path()) == [
        f"fold_{fold}/phase_{phase}/weights_best.pth" for phase in (2, 1) for fold in (0, 1)
    ]


def test_a_phase_that_was_interrupted_goes_on_and_a_finished_one_stays(
    run: Callable[..., dict[str, trainings.Trained]],
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = training()
    whole = run({"a": make_config(out=str(tmp_path / "whole"), val="")}, given)["a"]
    broken = make_config(out=str(tmp_path / "broken"), val="", checkpoint_every=1)

    def fail_at_three(row: dict[str, Any]) -> None:
        if row["iteration"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"a": broken}, given, on_row=fail_at_three)
    # As a process leaves it that is killed after the first iteration of the second phase.
    second = tmp_path / "broken" / "phase_1"
    (second / "checkpoints" / "previous.pth").replace(second / "checkpoints" / "last.pth")
    (second / job.RESULT).unlink()
    steps: list[str] = []
    iterate = Trainer._iterate

    def noted(trainer: Trainer, batches: Any) -> None:
        steps.append(trainer.config.out)
        iterate(trainer, batches)

    monkeypatch.setattr(Trainer, "_iterate", noted)
    again = run({"a": broken}, given)["a"]
    assert steps == [str(second)]  # one iteration, of the second phase
    last, expected = (checkpoint.load(trained.weights[0]).tensors for trained in (again, whole))
    assert all(torch.equal(last[name], tensor) for name, tensor in expected.items())


def test_a_fine_tuning_joins_the_ensemble_as_its_last_phase() -> None:
    trained = trainings.Trained((left("phase_0"), left("phase_1")), 2).and_then(left("finetune"))
    assert trained.weights == (Path("finetune"), Path("phase_1"))


def left(best: str) -> Any:
    """A result of a training with these weights."""
    return SimpleNamespace(best=Path(best))


def test_curves_of_phases_are_one_table() -> None:
    tables = [
        pd.DataFrame({"iteration": [1, 2], "lr": [3.0, 4.0]}),
        pd.DataFrame({"iteration": [1], "map": [0.5]}),
    ]
    joined = events.joined(tables)
    assert joined["iteration"].tolist() == [1, 2, 3]
    assert joined["map"].tolist()[2] == 0.5
    assert events.joined([]).empty
