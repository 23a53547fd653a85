"""The schedules against values worked out by hand."""

import math

import pytest

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.train.schedule import (
    ScheduleConfig,
    cosine,
    cosine_periodic,
    curve,
    lr_at,
    warmup,
)

PAPER = {"max_lr": 0.005, "min_lr": 1e-5, "period": 200}


@pytest.mark.parametrize(
    ("t", "lr"),
    [
        (0, 0.005),
        (100, 0.002505),  # half way: the mean of both
        (200, 1e-5),
        (300, 0.002505),  # it climbs back, it does not jump
        (400, 0.005),
        (4800, 0.005),
        (5000, 1e-5),
        (50, 1e-5 + 0.002495 * (1 + math.sqrt(0.5))),
    ],
)
def test_equation_4_with_the_papers_numbers(t, lr):
    assert cosine_periodic(t, **PAPER) == pytest.approx(lr, rel=1e-12)
    assert lr_at(ScheduleConfig(), t, max_iter=5000) == pytest.approx(lr, rel=1e-12)


def test_equation_4_is_even_and_repeats_every_second_period():
    rates = curve(ScheduleConfig(), 1200)
    assert rates[:401] == pytest.approx(rates[400::-1])
    assert rates[:800] == pytest.approx(rates[400:])
    assert max(rates) == 0.005
    assert min(rates) == pytest.approx(1e-5)


def test_one_cosine_ends_at_its_minimum_and_stays_there():
    assert cosine(0, 1.0, 0.1, 10) == 1.0
    assert cosine(5, 1.0, 0.1, 10) == pytest.approx(0.55)
    assert cosine(10, 1.0, 0.1, 10) == pytest.approx(0.1)
    assert cosine(25, 1.0, 0.1, 10) == pytest.approx(0.1)
    assert cosine(0, 1.0, 0.1, 0) == 0.1


def test_cosine_with_warm_up():
    config = ScheduleConfig(name="cosine", max_lr=1.0, min_lr=0.0, warmup_iters=10, warmup_factor=0.1)
    rates = curve(config, 110)
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.55)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert max(rates) == rates[10]


def test_warm_up_is_detectron2s():
    assert [warmup(t, 4, 0.2) for t in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert warmup(0, 0, 0.2) == 1.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "cosine_periodical"}, "did you mean 'cosine_periodic'"),
        ({"max_lr": 1e-6}, "min_lr"),  # below the default minimum
        ({"period": 0}, "period"),
    ],
)
def test_bad_numbers_are_refused(values, says):
    with pytest.raises(KitError, match=says):
        configs.from_dict(ScheduleConfig, values)
