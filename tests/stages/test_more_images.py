"""The learning curve of 03: which trainings it starts, and the scores of its points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kitlib import records
from kitlib.masks import rle
from kitlib.model.presets import ModelConfig
from kitlib.records import Cell, Frame
from kitlib.stages import more_images, parameters, trainings
from kitlib.train import TrainConfig

SIZE = (30, 40)
METHODS = ["one threshold for all types"]


def frames(begin: str, number: int, moved: int = 0) -> list[Frame]:
    """Squares of 10 x 10 pixels; of two types that alternate."""
    found = []
    for place in range(number):
        category = ("astro", "cort")[place % 2]
        cell = Cell(rle.from_crop([[1] * 10] * 10, 5 + moved, 5, *SIZE), category, 0.9, 0.9)
        found.append(Frame(f"{begin}{place}", None, *SIZE, (cell,), category))
    return found


@pytest.fixture
def fold(tmp_path: Path) -> Path:
    records.write_frames(tmp_path / "fold_0" / "train.npz", frames("train", 8))
    records.write_frames(tmp_path / "fold_0" / "val.npz", frames("val", 4))
    return tmp_path / "fold_0"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The trainings that are started. A model that trained on two images predicts cells moved by two pixels,
    an IoU of 80 / 120, which passes 4 of the 10 thresholds; one that trained on four, by one: 90 / 110, 7."""
    started: list[TrainConfig] = []

    def train(jobs: list[TrainConfig], gpus: int, **_: Any) -> Any:
        started.extend(jobs)
        return [SimpleNamespace(best=Path(job.out) / "weights_last.pth") for job in jobs]

    def predict(job: Any, gpus: int) -> Any:
        trained = len(records.read_frames(Path(job.weights[0]).with_name("train.npz")))
        assert job.frames.endswith("fold_0/val.npz")
        return SimpleNamespace(by_mask_threshold={0.5: frames("val", 4, {2: 2, 4: 1}[trained])})

    monkeypatch.setattr(trainings.train, "run_all", train)
    monkeypatch.setattr(more_images.predict, "run", predict)
    return started


def test_trainings_differ_in_their_images_alone(fold: Path, jobs: list[TrainConfig]) -> None:
    given = parameters.read("03_train", {"learning_curve": [0.5, 0.25, 0.24], "tuning_methods": METHODS})
    config = TrainConfig(out="", train="", categories=("astro", "cort"), model=ModelConfig("tiny", 2))
    others = frames("other", 2, moved=20)  # of another fold
    validated: Any = SimpleNamespace(predicted={0.5: [*others, *frames("val", 4)]})
    curve = more_images.measure(given, config, fold, validated)
    assert [Path(job.out) for job in jobs] == [fold / "2_images", fold / "4_images"]
    for job in jobs:
        assert job.val == str(fold / "val.npz")
        assert replace(job, out="", train="", val="") == config
    two, four = ({f.id for f in records.read_frames(job.train)} for job in jobs)
    assert two < four
    assert len(four) == 4
    assert curve is not None
    assert curve.scores == pytest.approx({"2": 0.4, "4": 0.7, "8": 1.0})
    assert curve.gain is not None


def test_without_shares_nothing_is_trained(fold: Path, jobs: list[TrainConfig]) -> None:
    given = parameters.read("03_train", {})
    assert more_images.measure(given, None, fold, None) is None  # type: ignore[arg-type]
    assert jobs == []


def test_a_single_validation_image_says_nothing_of_the_interval() -> None:
    given = parameters.read("03_train", {"tuning_methods": METHODS})
    point = more_images._point(3, frames("val", 1), {0.5: frames("val", 1)}, given)
    assert (point.score, point.low, point.high) == (1.0, 0.0, 1.0)
