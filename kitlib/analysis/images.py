"""The images themselves: how sharp and how even they are, and which of them nearly repeat one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.data.images import grey_shares, read_image
from kitlib.records import Frame

# Side of the pictures that near duplicates are looked for with, in pixels.
_THUMBNAIL = 48
# Above this correlation two images show the same place: it is about 0.5 where half of the structure is the
# same, while different images of the competition stay below 0.1.
_ALIKE = 0.5
# Images whose correlations are in memory at a time.
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Quality:
    """How good an image is.

    Attributes:
        frame_id: the frame.
        focus: the variance of the Laplacian over that of the grey levels: of one scene, lower is less sharp
            (Pech-Pacheco et al. 2000). 0 of a blank image.
        contrast: the standard deviation of the grey levels.
        gradient: the range of the illumination over its mean; the illumination is the mean of each sixteenth
            of the image.
        brightness: the mean grey level.
    """

    frame_id: str
    focus: float
    contrast: float
    gradient: float
    brightness: float


@dataclass(frozen=True)
class Pair:
    """Two images that show nearly the same.

    Attributes:
        first: id of the one.
        second: id of the other.
        similarity: correlation of their structure, up to 1.
    """

    first: str
    second: str
    similarity: float


class Measured(NamedTuple):
    """What one reading of an image tells, in 11 KiB.

    Attributes:
        quality: how good it is.
        shares: the share of pixels at each grey level, (256,).
        structure: the image reduced to 48 x 48 pixels without slow changes of illumination, as a unit vector;
            zeros of a blank one.
    """

    quality: Quality
    shares: NDArray[np.float64]
    structure: NDArray[np.float32]


def measure(frame: Frame) -> Measured:
    """Read a frame's image and measure it.

    Raises:
        KitError: the image cannot be read.
    """
    image = _read(frame)
    shares = grey_shares(image)
    levels = np.arange(256)
    mean = float(shares @ levels)
    contrast = float(shares @ (levels - mean) ** 2) ** 0.5
    whole = image.astype(np.float32)
    grid = cv2.resize(whole, (4, 4), interpolation=cv2.INTER_AREA)
    gradient = float(np.ptp(grid)) / mean if mean else 0.0
    quality = Quality(frame.id, sharpness(image), contrast, gradient, mean)
    return Measured(quality, shares, _structure(whole))


def sharpness(image: NDArray[np.uint8]) -> float:
    """The variance of an (H, W) image's Laplacian over that of its grey levels; 0 of a blank image."""
    deviation = float(cv2.meanStdDev(image)[1][0, 0])
    if not deviation:
        return 0.0
    return float(cv2.meanStdDev(cv2.Laplacian(image, cv2.CV_32F))[1][0, 0] / deviation) ** 2


def near_duplicates(measured: Sequence[Measured]) -> list[Pair]:
    """Pairs of images that show the same place, the most similar first.

    The structures of all pairs are correlated, which takes a second for 2,600 images. Images of one place
    hours apart are found, flipped or shifted ones are not.
    """
    if not measured:
        return []
    structures = np.stack([one.structure for one in measured])
    names = [one.quality.frame_id for one in measured]
    pairs = []
    for start in range(0, len(names), _ROWS_AT_ONCE):
        alike = structures[start : start + _ROWS_AT_ONCE] @ structures.T
        for row, second in np.argwhere(alike > _ALIKE).tolist():
            if row + start < second:
                value = min(float(alike[row, second]), 1.0)
                pairs.append(Pair(names[row + start], names[second], value))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def across_folds(pairs: Sequence[Pair], fold: Mapping[str, int]) -> list[Pair]:
    """The pairs whose images lie in different folds: the one gives the other away.

    Args:
        pairs: of ``near_duplicates``.
        fold: of each id; a pair with an image that is in none is left out.
    """
    known = (pair for pair in pairs if pair.first in fold and pair.second in fold)
    return [pair for pair in known if fold[pair.first] != fold[pair.second]]


def read_shares(frame: Frame) -> NDArray[np.float64]:
    """The share of pixels at each grey level of a frame's image, (256,).

    Raises:
        KitError: the image cannot be read.
    """
    return grey_shares(_read(frame))


def grey_levels(shares: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The share of pixels at each grey level in all images together, (256,); each image counts the same.

    Args:
        shares: of each image, (256,).
    """
    total, count = np.zeros(256), 0
    for share in shares:
        total, count = total + share, count + 1
    return total / max(count, 1)


def _structure(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The structure of an image as a unit vector; zeros of a blank one."""
    reduced = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    slow = cv2.GaussianBlur(reduced, (0, 0), _THUMBNAIL / 8)
    small: NDArray[np.float32] = np.asarray(reduced, np.float32) - np.asarray(slow, np.float32)
    norm = float(np.linalg.norm(small))
    # Below a thousandth of a grey level there is rounding only.
    return (small / norm).ravel() if norm > 1e-3 * _THUMBNAIL else np.zeros(_THUMBNAIL**2, np.float32)


def _read(frame: Frame) -> NDArray[np.uint8]:
    if frame.path is None:
        return np.zeros((frame.height, frame.width), np.uint8)
    return read_image(frame.path, frame.height, frame.width)
