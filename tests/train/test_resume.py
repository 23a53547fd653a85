"""What may change between the parts of a training, and what may not; its checkpoints, whole or not there, and
random generators that go on where they were."""

import dataclasses
import os
import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.checkpoint import Checkpoint
from kitlib.model.presets import ModelConfig
from kitlib.predict import PredictConfig
from kitlib.train import resume
from kitlib.train.schedule import ScheduleConfig

MICRO, CATEGORIES = ModelConfig(num_classes=2), ("bright", "dark")


def state(config, data="d"):
    return {"config": configs.to_dict(config), "data": data}


def test_differences_name_the_nested_key_and_both_values():
    old = {"a": 1, "model": {"preset": "tiny", "options": {"norm": "GN"}}, "gone": True}
    new = {"a": 2, "model": {"preset": "r50", "options": {"norm": "GN"}}, "new": 0}
    assert resume.differences(old, new, {"gone"}) == [
        "a: 1 -> 2",
        "model.preset: 'tiny' -> 'r50'",
        "new: None -> 0",
    ]
    assert resume.differences(old, old) == []


def test_where_things_lie_and_how_fast_to_go_may_change(make_config):
    config = make_config()
    moved = make_config(out="elsewhere", train="moved.npz", workers=7, eval_every=3, checkpoint_every=9)
    resume.check(state(config), moved, "d")


@pytest.mark.parametrize("eval_every", [0, 5])
def test_how_to_predict_may_change_where_no_evaluation_chooses_weights(make_config, eval_every):
    config = make_config(eval_every=eval_every)
    other = make_config(eval_every=eval_every, predict=PredictConfig(tta=("none", "flip_h")))
    if eval_every:
        with pytest.raises(KitError, match=r"predict\.tta"):
            resume.check(state(config), other, "d")
    else:
        resume.check(state(config), other, "d")


def test_what_shapes_the_weights_may_not(make_config):
    config = make_config()
    with pytest.raises(
        KitError, match=r"images_per_batch: 2 -> 4.*give another out, or remove .*out to begin anew"
    ):
        resume.check(state(config), make_config(images_per_batch=4), "d")
    schedule = dataclasses.replace(config.schedule, max_lr=0.1)
    with pytest.raises(KitError, match=r"schedule\.max_lr: 0\.002 -> 0\.1"):
        resume.check(state(config), make_config(schedule=schedule), "d")
    with pytest.raises(KitError, match="the frames"):
        resume.check(state(config), config, "other")


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"schedule": ScheduleConfig("cosine_periodic")}, True),
        ({"schedule": ScheduleConfig("cosine")}, False),  # its rates would have been others
    ],
)
def test_a_training_may_be_made_longer_where_that_changes_no_past(make_config, fields, allowed):
    short, long = make_config(max_iter=10, **fields), make_config(max_iter=20, **fields)
    if allowed:
        resume.check(state(short), long, "d")
    else:
        with pytest.raises(KitError, match="max_iter: 10 -> 20"):
            resume.check(state(short), long, "d")


def test_the_fingerprint_follows_the_data_and_not_its_place(frames, tmp_path):
    original = resume.data_fingerprint(frames[:4], frames[4:])
    copied = []
    for frame in frames:
        path = tmp_path / frame.path.name
        path.write_bytes(frame.path.read_bytes())
        copied.append(dataclasses.replace(frame, path=path))
    assert resume.data_fingerprint(copied[:4], copied[4:]) == original
    assert resume.data_fingerprint(copied[:3], copied[3:]) != original
    fewer = dataclasses.replace(copied[0], cells=copied[0].cells[1:])
    assert resume.data_fingerprint([fewer, *copied[1:4]], copied[4:]) != original
    copied[0].path.write_bytes(b"other pixels")
    assert resume.data_fingerprint(copied[:4], copied[4:]) != original


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def write(folder, *numbers, training=None):
    for number in numbers:
        tensors = {"w": torch.full((2000,), float(number))}
        resume.save(folder, Checkpoint(MICRO, CATEGORIES, number, tensors, training=training or {}))


def test_the_last_and_the_one_before_are_kept(tmp_path):
    assert resume.load(tmp_path) == (None, "")
    assert not resume.exists(tmp_path)
    write(tmp_path, 1, 2, 3)
    found, note = resume.load(tmp_path)
    assert (found.iteration, note) == (3, "")
    assert found.tensors["w"][0] == 3
    assert torch.load(resume.previous(tmp_path), weights_only=True)["iteration"] == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last.pth", "previous.pth"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_last_falls_back_and_says_so(tmp_path, keep):
    write(tmp_path, 1, 2)
    path = resume.last(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    found, note = resume.load(tmp_path)
    assert found.iteration == 1
    assert "last.pth is damaged" in note
    assert "going on from previous.pth" in note


def test_a_missing_last_falls_back(tmp_path):
    write(tmp_path, 1, 2)
    resume.last(tmp_path).unlink()  # killed between the two renames
    assert resume.load(tmp_path).checkpoint.iteration == 1


def test_nothing_whole_is_an_error(tmp_path):
    write(tmp_path, 1, 2)
    for path in (resume.last(tmp_path), resume.previous(tmp_path)):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(KitError, match=r"last\.pth and previous\.pth are damaged.*to begin anew"):
        resume.load(tmp_path)


@contextmanager
def small_disk():
    """No file may grow beyond 20 kB, as on a full disk (nor may the log of the tests: hold it briefly)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_the_earlier_ones(tmp_path):
    write(tmp_path, 1, 2)
    with pytest.raises(KitError, match=r"cannot write .*last\.pth"), small_disk():
        write(tmp_path, 3, training={"momenta": torch.zeros(100_000)})
    assert resume.load(tmp_path).checkpoint.iteration == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last.pth", "previous.pth"]


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(KitError, match="cannot write"):
        write(tmp_path, 1)


def test_random_generators_go_on_through_a_file(tmp_path):
    cpu = torch.device("cpu")
    draw()
    np.random.randn()  # leaves a second normal number cached
    write(tmp_path, 1, training={"random": resume.random_state(cpu)})
    expected = [draw(), np.random.randn(), torch.randperm(5).tolist()]
    draw()
    resume.set_random_state(resume.load(tmp_path).checkpoint.training["random"], cpu)
    assert [draw(), np.random.randn(), torch.randperm(5).tolist()] == expected


def test_what_is_no_checkpoint_of_a_training_is_not_resumed(tmp_path):
    checkpoint.save(resume.last(tmp_path), Checkpoint(MICRO, CATEGORIES, 3, {"w": torch.ones(1)}))
    with pytest.raises(KitError, match=r"last\.pth holds weights and no training to resume; remove .* anew"):
        resume.load(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused_and_not_taken_for_a_damaged_one(tmp_path):
    write(tmp_path, 1, 2)
    torch.save({"model": os.getcwd}, resume.last(tmp_path))
    with pytest.raises(KitError, match=r"last\.pth is refused: loading it would run posix.getcwd"):
        resume.load(tmp_path)
