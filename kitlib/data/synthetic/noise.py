"""Random fields and factors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_COARSE = 7  # slow noise is a sum of bells on a grid of this many points a side
_BELLS = 1.25  # standard deviation of such a sum, nearly everywhere


def smooth_noise(size: tuple[int, int], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise with details of about ``sigma`` pixels, zero mean, unit variance; its edges meet."""
    field = ndimage.gaussian_filter(rng.standard_normal(size), sigma, mode="wrap")
    field -= field.mean()
    return field / max(float(field.std()), 1e-9)


def slow_noise(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise that changes over about a fifth of the frame, of about unit variance."""
    grid = np.arange(_COARSE)
    places = (np.linspace(0.5, _COARSE - 1.5, side)[:, None] for side in size)
    rows, columns = (np.exp(-((place - grid) ** 2)) for place in places)
    return rows @ rng.standard_normal((_COARSE, _COARSE)) @ columns.T / _BELLS


def sensor_noise(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise as the instrument leaves it: a little blurred, without slow changes, unit variance."""
    white = rng.standard_normal(size)
    field = ndimage.gaussian_filter(white, 0.45) - ndimage.gaussian_filter(white, 1.6)
    return field / field.std()


def patch(tile: NDArray, shape: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """A random part, of ``shape``, of a tile that repeats endlessly."""
    rows = (rng.integers(tile.shape[0]) + np.arange(shape[0])) % tile.shape[0]
    columns = (rng.integers(tile.shape[1]) + np.arange(shape[1])) % tile.shape[1]
    return tile[np.ix_(rows, columns)]


def lognormal(rng: np.random.Generator, sigma: float) -> float:
    """A log-normal factor with mean 1; ``sigma`` is the standard deviation of its logarithm."""
    return math.exp(sigma * rng.standard_normal() - sigma * sigma / 2)
