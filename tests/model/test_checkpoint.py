"""Checkpoints of ours: written and read back, by this version and the first, and those that do not fit."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.checkpoint import Checkpoint
from kitlib.model.pickles import Unreadable
from kitlib.model.presets import ModelConfig

CONFIG = ModelConfig("tiny", 2, "last", {"anchor_ratios": [0.5, 1.0], "box_width": 128})
TYPES = ("astro", "cort")
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}
TRAINING = {"model": {"a.weight": torch.zeros(2, 3)}, "step": {"lr": np.float64(0.1)}, "random": [(3, None)]}


def same(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[n], there[n]) for n in here)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("training", [None, TRAINING])
def test_what_is_saved_is_loaded(training: Any, mmap: bool, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "w.pth", Checkpoint(CONFIG, TYPES, 12, TENSORS, 0.31, training))
    back = checkpoint.load(path, mmap)
    assert (back.config, back.categories, back.iteration, back.map) == (CONFIG, TYPES, 12, 0.31)
    assert same(back.tensors, TENSORS)
    if training:
        assert torch.equal(back.training["model"]["a.weight"], torch.zeros(2, 3))
        assert (back.training["step"], back.training["random"]) == ({"lr": 0.1}, [(3, None)])
    else:
        assert back.training is None


def test_tensors_that_a_training_shares_are_written_once(tmp_path: Path) -> None:
    model = torch.nn.Linear(200, 200)
    alone = Checkpoint(CONFIG, TYPES, 1, model.state_dict())
    shared = replace(alone, training={"model": model.state_dict()})
    sizes = [checkpoint.save(tmp_path / "w.pth", c).stat().st_size for c in (alone, shared)]
    assert sizes[1] < 1.02 * sizes[0]


@pytest.mark.parametrize("average", [None, {"a.weight": torch.ones(2, 3)}])
@pytest.mark.parametrize("training", [{}, {"step": {"lr": 0.1}, "data": "d"}])
def test_files_of_the_first_version(training: Any, average: Any, tmp_path: Path) -> None:
    """They have no format; the averaged weights are "ema"; what a training needs lies beside the tensors."""
    described = {"preset": "tiny", "num_classes": 2, "mask_stages": "all", "options": {"box_width": 64}}
    content = {"model_config": described, "categories": list(TYPES), "iteration": 5, **training}
    torch.save({**content, "model": TENSORS, "ema": average}, tmp_path / "w.pth")
    back = checkpoint.load(tmp_path / "w.pth")
    assert back.config == ModelConfig("tiny", 2, "all", {"box_width": 64})
    assert (back.categories, back.iteration, back.map) == (TYPES, 5, None)
    assert same(back.tensors, average or TENSORS)
    if training:
        assert same(back.training["model"], TENSORS)
        assert back.training.items() >= training.items()
    else:
        assert back.training is None


def test_slim_leaves_what_only_training_needs(tmp_path: Path) -> None:
    heavy = replace(Checkpoint(CONFIG, TYPES, 1, TENSORS), training={"momenta": torch.zeros(100_000)})
    path = checkpoint.save(tmp_path / "w.pth", heavy.slim())
    assert path.stat().st_size < 10_000
    assert checkpoint.load(path).training is None


def test_half_has_16_bits_where_they_suffice() -> None:
    """The largest number in 16 bits is 65,504; batch norms of raw grey levels know larger variances."""
    tensors = TENSORS | {"norm.running_var": torch.tensor([1.0, 70_000.0]), "thirds": torch.ones(2) / 3}
    half = Checkpoint(CONFIG, TYPES, 1, tensors).half().tensors
    assert {name: tensor.dtype for name, tensor in half.items()} == {
        "a.weight": torch.float16,
        "a.steps": torch.int64,
        "norm.running_var": torch.float32,
        "thirds": torch.float16,
    }
    assert half["norm.running_var"].tolist() == [1.0, 70_000.0]
    assert half["thirds"].tolist() == pytest.approx([1 / 3, 1 / 3], rel=1e-3)
    assert half["a.steps"] == 7


def test_an_earlier_file_is_kept_as_the_previous_one(tmp_path: Path) -> None:
    path, previous = tmp_path / "last.pth", tmp_path / "previous.pth"
    for iteration in (1, 2):
        checkpoint.save(path, Checkpoint(CONFIG, TYPES, iteration, TENSORS), previous)
    assert [checkpoint.load(p).iteration for p in (path, previous)] == [2, 1]


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "w.pth", Checkpoint(CONFIG, TYPES, 1, TENSORS))
    large = Checkpoint(CONFIG, TYPES, 2, {"w": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(KitError, match=r"cannot write .*w\.pth"):
            checkpoint.save(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path).iteration == 1
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def content(**changes: Any) -> dict[str, Any]:
    described = {"preset": "tiny", "num_classes": 2, "mask_stages": "all", "options": {}}
    values = {"format": 1, "model_config": described, "categories": list(TYPES), "model": TENSORS}
    return {name: value for name, value in (values | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TENSORS, "does not say which model it is of; name a weights_"),
        ([1, 2], "does not say which model it is of"),
        (content(categories=None), "does not say which model it is of"),
        (content(model=7), "does not say which model it is of"),
        (content(categories=["cell"]), "names 1 categories for 2 classes"),
        (
            content(format=2),
            r"w\.pth is in format 2 of a newer kitlib.* up to 1; update kitlib",
        ),
        (content(model_config={"preset": "tyni"}), "did you mean 'tiny'"),
        (content(model_config={"presets": "tiny"}), r"w\.pth: model_config 'presets'.*did you mean 'preset'"),
        (content(model=len), r"w\.pth is refused: loading it would run len; save only its weights"),
    ],
)
def test_a_file_that_is_none_of_ours_says_so(wrong: Any, message: str, tmp_path: Path) -> None:
    torch.save(wrong, tmp_path / "w.pth")
    with pytest.raises(KitError, match=message):
        checkpoint.load(tmp_path / "w.pth")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_or_missing(share: float, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "w.pth", Checkpoint(CONFIG, TYPES, 1, TENSORS))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Unreadable, match=r"w\.pth cannot be read as weights .*cut short"):
        checkpoint.load(path)
    with pytest.raises(KitError, match=r"nowhere\.pth does not exist; train first"):
        checkpoint.load(tmp_path / "nowhere.pth")


def test_differences_name_the_tensors() -> None:
    here = {"a": torch.zeros(2), "b": torch.zeros(3, 4), "c": torch.zeros(1), "d": torch.zeros(1)}
    file = {"a": torch.ones(2), "b": torch.zeros(4, 3), "e": torch.zeros(1)}
    assert checkpoint.differences(here, here) == []
    assert checkpoint.differences(here, file) == [
        "missing from the file: c and 1 more",
        "unknown to the model: e",
        "of another shape: b, (4, 3) in place of (3, 4)",
    ]
