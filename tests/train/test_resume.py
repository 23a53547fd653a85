"""What may change between the parts of a training, and what may not."""

import dataclasses

import pytest

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.predict import PredictConfig
from kitlib.train import resume
from kitlib.train.config import AverageConfig
from kitlib.train.schedule import ScheduleConfig


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
        ({"schedule": ScheduleConfig("step"), "average": AverageConfig("swa")}, False),  # its tail moves
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
