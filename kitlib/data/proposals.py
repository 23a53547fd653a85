"""Scales, crop, anchors and grey levels that suit the cells of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitlib.data.images import grey_shares, read_image
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Frame

#: Diameters in pixels of the network's input at which a cell is neither too small for the finest anchors and
#: features, nor larger than a mask head of 28 x 28 pixels can make use of.
_SMALLEST, _LARGEST = 24, 48
_MOST_ENLARGED = 4.0
#: Images whose grey levels are measured.
_MEASURED = 200
_STEP = 32  # sides of crops are multiples of it, as the coarser feature maps halve five times


@dataclass(frozen=True)
class Proposal:
    """What suits the cells of a data set, and why.

    Attributes:
        scale: factor by which frames are resized for the network.
        crop: the least side of a training crop, in pixels after resizing.
        largest: the longest side of a frame, in pixels after resizing by the largest training scale.
        anchor_sizes: sides of the anchors at the five levels of the feature pyramid, after resizing.
        pixel_mean, pixel_std: grey level and its standard deviation within images.
        reasons: a sentence for each of "scales", "crop", "anchors" and "grey_levels".
    """

    scale: float
    crop: int
    largest: int
    anchor_sizes: tuple[tuple[float], ...]
    pixel_mean: float
    pixel_std: float
    reasons: dict[str, str]

    @property
    def training_scales(self) -> tuple[float, float]:
        """The range from which the factor of a training frame is drawn."""
        return round(0.75 * self.scale, 2), round(1.33 * self.scale, 2)

    @property
    def summary(self) -> str:
        """A line for each proposal: what it is, and why."""
        low, high = self.training_scales
        values = {
            "scales": f"{low} to {high}",
            "crop": f"{self.crop} pixels or more",
            "anchors": " ".join(f"{size:.0f}" for (size,) in self.anchor_sizes),
            "grey_levels": f"{self.pixel_mean} and {self.pixel_std}",
        }
        return "\n".join(f"{name:12} {value:24} {self.reasons[name]}" for name, value in values.items())

    def scales(self, count: int) -> tuple[float, ...]:
        """So many factors for prediction, around ``scale``, each 1.4 times the one before."""
        middle = (count - 1) / 2
        return tuple(round(self.scale * 1.4 ** (k - middle), 2) for k in range(count))

    def crop_of(self, side: int) -> int:
        """The side of a crop that is to be ``side``: not smaller than ``crop``, nor larger than a frame."""
        return max(_STEP, min(max(side, self.crop), _rounded_up(self.largest)))


def propose(frames: Sequence[Frame], shares: Sequence[NDArray[np.float64]] | None = None) -> Proposal:
    """Measure the annotated cells and the grey levels of frames.

    The median cell is brought to a diameter of 24 to 48 pixels. The finest anchors are as large as the tenth
    smallest of a hundred cells, and each level has anchors twice as large as the level before. A crop holds
    nearly every cell, with half of its size around it.

    Args:
        frames: with cells.
        shares: the share of pixels at each grey level, (256,), of each frame; None: their images are read.

    Raises:
        KitError: there is no cell, or an image cannot be read.
    """
    diameters, sides = _measured([frame for frame in frames if frame.cells])
    median, most = float(np.median(diameters)), float(np.percentile(sides, 99))
    scale = _scale(median)
    finest = float(np.clip(round(float(np.percentile(sides, 10)) * scale), 8, 16))
    crop = _rounded_up(1.5 * most * scale)
    every = slice(None, None, max(1, len(frames) // _MEASURED))
    if shares is None:
        measured = [grey_shares(read_image(frame.path)) for frame in frames[every] if frame.path is not None]
    else:
        measured = list(shares[every])
    mean, std = _grey_levels(measured)
    longest = max(max(frame.height, frame.width) for frame in frames)
    reasons = {
        "scales": f"the median cell is {median:.0f} pixels across; {median * scale:.0f} suit the network",
        "crop": f"99 of 100 cells are at most {most * scale:.0f} pixels long after resizing",
        "anchors": f"the smallest tenth of the cells is below {finest:.0f} pixels after resizing",
        "grey_levels": f"images have a mean of {mean:.0f}, and a standard deviation of {std:.0f}",
    }
    anchors = tuple((finest * 2**level,) for level in range(5))
    largest = round(longest * round(1.33 * scale, 2))
    return Proposal(scale, crop, largest, anchors, mean, std, reasons)


def _measured(frames: Sequence[Frame]) -> tuple[NDArray, NDArray]:
    """Diameters of the circles with the cells' areas, and the longer sides of their boxes, in pixels."""
    masks = [cell.mask for frame in frames for cell in frame.cells]
    if not masks:
        raise KitError("no image has a cell, so that nothing can be proposed; add annotated images")
    areas = rle.areas(masks)
    boxes = rle.boxes(masks)
    return np.sqrt(4 / np.pi * areas), np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def _scale(diameter: float) -> float:
    factor = np.clip(diameter, _SMALLEST, _LARGEST) / diameter
    return round(float(min(factor, _MOST_ENLARGED)), 2)


def _grey_levels(shares: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Mean of the images' means, and root of the mean of their variances; at least 1."""
    levels = np.arange(256)
    means = [float(share @ levels) for share in shares]
    variances = [float(share @ (levels - mean) ** 2) for share, mean in zip(shares, means, strict=True)]
    return round(float(np.mean(means)), 1), max(1.0, round(float(np.mean(variances)) ** 0.5, 1))


def _rounded_up(side: float) -> int:
    return int(-(-side // _STEP) * _STEP)
