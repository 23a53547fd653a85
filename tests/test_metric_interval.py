"""Bootstrap intervals: the normal approximation where it holds, and no width where nothing varies."""

import numpy as np
import pytest

from kitlib.metric import interval, means


def test_as_the_normal_approximation_says():
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    low, high = interval(values, 0.9)
    error = values.std() / 20
    assert (low, high) == pytest.approx(values.mean() + 1.645 * error * np.array([-1, 1]), abs=0.001)


def test_constant_and_single_values():
    assert interval([0.4] * 7) == pytest.approx((0.4, 0.4))
    assert interval([0.2]) == (0.2, 0.2)


def test_the_seed_decides():
    values = [0.1, 0.5, 0.9]
    assert (means(values, 1) == means(values, 1)).all()
    assert (means(values, 1) != means(values, 2)).any()
    assert set(np.round(means(values, 0) * 3, 6)) <= set(np.round(np.arange(0.3, 2.8, 0.4), 6))
