"""How far a mean over images is to be believed: images drawn again and again, with replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4000


def means(values: Sequence[float], seed: int = 0, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """The means of as many values drawn with replacement, (rounds,)."""
    values = np.asarray(values, float)
    return np.random.default_rng(seed).choice(values, (rounds, len(values))).mean(axis=1)


def interval(values: Sequence[float], confidence: float = 0.9, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of values, one an image (Efron 1979)."""
    low, high = np.quantile(means(values, seed), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
