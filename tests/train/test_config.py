"""The configuration of a training: through YAML and back, and what it refuses."""

import pytest

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.train.config import TrainConfig
from kitlib.train.schedule import ScheduleConfig


def test_through_yaml_and_back(make_config, tmp_path):
    config = make_config(schedule=ScheduleConfig(warmup_iters=3))
    assert configs.load(TrainConfig, configs.save(config, tmp_path / "config.yaml")) == config


def test_the_defaults_are_the_papers():
    config = TrainConfig(out="o", train="t", categories=("astro", "cort", "shsy5y"))
    schedule = config.schedule
    assert (schedule.name, schedule.max_lr, schedule.min_lr, schedule.period) == (
        "cosine_periodic",
        0.005,
        1e-5,
        200,
    )
    assert config.max_iter == 5000
    assert (config.optim.name, config.optim.momentum, config.optim.weight_decay) == ("sgd", 0.9, 1e-4)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_iters": 5}, "did you mean 'max_iter'"),
        ({"schedule": {"max_ler": 1.0}}, r"schedule.*did you mean 'max_lr'"),
        ({"categories": ["a", "b"]}, "num_classes is 3, but there are 2 categories"),
        ({"categories": ["a", "b", "b"]}, "different names"),
        ({"amp": "fp32"}, "fp16"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"ema_decay": 1.0}, "ema_decay must be below 1"),
        ({"workers": -1}, "workers must be at least 0, not -1"),
    ],
)
def test_bad_values_are_refused(values, says):
    base = {"out": "o", "train": "t", "categories": ["a", "b", "c"]}
    with pytest.raises(KitError, match=says):
        configs.from_dict(TrainConfig, base | values)


def test_a_batch_is_shared_evenly(make_config):
    assert make_config(images_per_batch=8, accumulate=2).images_per_process(4) == 2
    for world in (3, 8, 16):
        with pytest.raises(KitError, match=f"make it a multiple of {world * 2}, or give fewer --gpus"):
            make_config(images_per_batch=8, accumulate=2).images_per_process(world)


@pytest.mark.parametrize(
    ("images", "accumulate", "present", "used"),
    [
        (2, 1, 8, 2),
        (16, 1, 3, 2),
        (16, 4, 8, 4),
        (8, 1, 8, 8),
        (2, 1, 0, 0),
        (1, 1, 4, 1),
        (6, 2, 3, 3),
        (1, 2, 4, 1),
    ],
)
def test_as_many_gpus_as_share_the_batch(make_config, images, accumulate, present, used):
    config = make_config(images_per_batch=images, accumulate=accumulate)
    assert config.most_processes(present) == used
    if used and images >= accumulate:
        assert config.images_per_process(used) == images // used
