"""The score over the number of annotated training images, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError

# Exponents of the power law that are tried; error rates of deep networks fall with exponents of 0.07 to 0.35,
# rarely above 1 (Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017).
_EXPONENTS = np.round(np.arange(0.05, 1.51, 0.05), 2)
_ROUNDS = 2000
# Half the width of a 90 % interval of a normal distribution, in standard deviations.
_HALF_90 = 1.645
_LEAST_SPREAD = 1e-3
_LEAST_POINTS = 3
# What three digits after the point show as more than nothing.
_LEAST_GAIN = 0.0005


@dataclass(frozen=True)
class Point:
    """A training's score.

    Attributes:
        images: annotated images that it trained on.
        score: on validation images.
        low: the lower end of the score's 90 % interval.
        high: its upper end.
    """

    images: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Growth:
    """A power law through points, and its uncertainty.

    Attributes:
        points: by number of images.
        images: numbers of images of the curve, from the fewest to twice the most.
        curve: the score at each of them.
        low: the lower end of its 90 % interval.
        high: its upper end.
        more: further images that the gain is given for.
        gain: what they would bring; None with fewer than three different numbers of images.
        gain_low: the lower end of the gain's 90 % interval.
        gain_high: its upper end.
    """

    points: tuple[Point, ...]
    images: NDArray[np.int64]
    curve: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    more: int
    gain: float | None
    gain_low: float = 0.0
    gain_high: float = 0.0

    @property
    def sentence(self) -> str:
        """The gain in words."""
        if self.gain is None:
            return (
                "Three or more different numbers of training images are needed to say what more would bring."
            )
        said = (
            f"{self.more} more annotated images would bring about {self.gain:+.3f} (90 % interval "
            f"{self.gain_low:+.3f} to {self.gain_high:+.3f}), if the curve of {len(self.points)} trainings "
            f"goes on beyond {self.points[-1].images} images as it does."
        )
        if self.gain < _LEAST_GAIN:
            return f"{said} The score did not rise with the number of images."
        return said if self.gain_low >= _LEAST_GAIN else f"{said} Chance alone may explain that it rises."

    @property
    def scores(self) -> dict[str, float]:
        """The score of each point by its number of images."""
        return {str(point.images): point.score for point in self.points}


def fit(points: Sequence[Point], more: int = 10, seed: int = 0) -> Growth:
    """Fit score = a - b n^-c, with a at most 1 and b not negative, and say what further images would bring.

    Points count by the inverse of their variance, which their intervals give. For the interval of the curve,
    points are drawn again and again from normal distributions of that variance and fitted anew. What another
    form than a power law would say is not in it, so the curve ends at twice the images that there are, nor is
    what another seed of the trainings would give. Scores on the same validation images rise and fall
    together, which makes the gain more certain than is said.

    Args:
        points: at least one, of trainings that differ in nothing but their images.
        more: further images.
        seed: draws the points.

    Raises:
        KitError: no points, or a number of images below 1.
    """
    points = tuple(sorted(points, key=lambda point: (point.images, point.score)))
    if not points or points[0].images < 1:
        raise KitError("a learning curve needs points of at least one training image; give some")
    n = np.array([point.images for point in points], float)
    most = points[-1].images
    images = np.unique(np.geomspace(points[0].images, 2 * most, 60).round().astype(np.int64))
    if len(set(n)) < _LEAST_POINTS:
        none = np.zeros(0)
        return Growth(points, images[:0], none, none, none, more, None)
    score = np.array([point.score for point in points])
    spread = np.array([point.high - point.low for point in points]) / (2 * _HALF_90)
    spread = np.maximum(spread, _LEAST_SPREAD)
    drawn = np.random.default_rng(seed).normal(score, spread, (_ROUNDS, len(score)))
    at = np.concatenate([images, [most, most + more]])
    (curve,), curves = _power_laws(n, score[None], spread, at), _power_laws(n, drawn, spread, at)
    low, high = np.quantile(curves[:, :-2], [0.05, 0.95], axis=0)
    gains = np.quantile(curves[:, -1] - curves[:, -2], [0.05, 0.95])
    gain = float(curve[-1] - curve[-2])
    return Growth(points, images, curve[:-2], low, high, more, gain, *gains.tolist())


def _power_laws(
    n: NDArray[np.float64], scores: NDArray[np.float64], spread: NDArray[np.float64], at: NDArray
) -> NDArray[np.float64]:
    """The values of least-squares power laws.

    Args:
        n: (P,) numbers of images.
        scores: (R, P) scores; a curve is fitted to each row.
        spread: (P,) their standard deviations.
        at: (N,) numbers of images at which the curves are wanted.

    Returns:
        (R, N), of the exponent with the smallest error for each row.
    """
    weight = spread**-2 / np.sum(spread**-2)
    least = np.full(len(scores), np.inf)
    values = np.zeros((len(scores), len(at)))
    for exponent in _EXPONENTS:
        x = -(n**-exponent)
        top, slope = _line(x, scores, weight)
        error = ((scores - top[:, None] - slope[:, None] * x) ** 2 @ weight).round(15)
        better = error < least
        least[better] = error[better]
        curve = top[:, None] - slope[:, None] * at.astype(float) ** -exponent
        values[better] = curve[better]
    return values


def _line(
    x: NDArray[np.float64], scores: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intercept, at most 1, and slope, at least 0, of the weighted least-squares line of each row."""
    mean_x, means = x @ weight, scores @ weight
    slope = np.maximum((scores - means[:, None]) @ (weight * (x - mean_x)) / ((x - mean_x) ** 2 @ weight), 0)
    top = means - slope * mean_x
    # The best line through the point (0, 1).
    bound = np.maximum((scores - 1) @ (weight * x) / (x**2 @ weight), 0)
    return np.where(top > 1, 1.0, top), np.where(top > 1, bound, slope)
