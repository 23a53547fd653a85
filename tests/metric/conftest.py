"""Pairs of label images: true cells, and predictions that are moved, missed, split, merged and surplus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

SIDE = 64


def discs(rng: np.random.Generator, count: int) -> np.ndarray:
    """A label image of discs, of which later ones cover earlier ones."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number in range(1, count + 1):
        y, x, radius = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(2, 9)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    return labels


def perturbed(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """The label image with cells moved, lost, cut in two or joined, and with further ones."""
    numbers = np.unique(labels[labels > 0])
    found = np.zeros_like(labels)
    for number in numbers:
        fate = rng.random()
        moved = np.roll(labels == number, rng.integers(-2, 3, 2), (0, 1))
        if fate < 0.2:
            continue
        found[moved] = number if fate < 0.8 or len(numbers) < 2 else rng.choice(numbers)
        if fate < 0.35:
            found[moved & (np.indices(labels.shape)[0] % 8 < 4)] = 100 + number
    found[:3, :3] = 500
    return found


@pytest.fixture(scope="session")
def pair() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """``pair(seed)``: a true and a predicted label image."""

    def make(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        truth = discs(rng, int(rng.integers(0, 25)))
        return truth, perturbed(rng, truth)

    return make
