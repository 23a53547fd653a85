"""Random scale, crop, flips, rotation and grey levels of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kitlib.inputs.config import AugmentConfig, Size
from kitlib.inputs.patch import Box, Patch, flip_x, flip_y, rot90
from kitlib.masks import rle
from kitlib.records import Frame


@dataclass(frozen=True)
class View:
    """A scale and a crop.

    Attributes:
        size: to which the frame is resized.
        window: the crop from the resized frame; may extend beyond it.
    """

    size: Size
    window: Box

    def near(self, frame: Size) -> Box:
        """The box in a frame of this (height, width) that has any influence on the window."""
        x0, y0, x1, y1 = self.window
        scale_y, scale_x = frame[0] / self.size[0], frame[1] / self.size[1]
        left, top = int(np.floor(x0 * scale_x)) - 1, int(np.floor(y0 * scale_y)) - 1
        right, bottom = int(np.ceil(x1 * scale_x)) + 1, int(np.ceil(y1 * scale_y)) + 1
        return max(left, 0), max(top, 0), min(right, frame[1]), min(bottom, frame[0])


def draw_view(frame: Frame, config: AugmentConfig, rng: Generator, crop: Size | None = None) -> View:
    """Draw a scale and a crop.

    Args:
        frame: the frame to resize and crop.
        config: the ranges to draw from.
        rng: the source of randomness.
        crop: the crop's size, in place of ``config.crop``.
    """
    focus = _draw_focus(frame, config, rng)
    factor = rng.uniform(*config.scale_by_type.get(frame.category or "", config.scale))
    size = max(round(frame.height * factor), 1), max(round(frame.width * factor), 1)
    if focus is not None:
        focus = focus[0] * size[1] / frame.width, focus[1] * size[0] / frame.height
    return View(size, _place(crop or config.crop or size, size, focus, rng))


def _draw_focus(frame: Frame, config: AugmentConfig, rng: Generator) -> tuple[float, float] | None:
    """The middle (x, y) of a random cell; None for a crop anywhere, see ``AugmentConfig.cell_centred``."""
    if config.cell_centred <= rng.random() or not frame.cells:
        return None
    cell = frame.cells[int(rng.integers(len(frame.cells)))]
    x0, y0, x1, y1 = rle.boxes([cell.mask])[0].tolist()
    return (x0 + x1) / 2, (y0 + y1) / 2


def _place(size: Size, area: Size, focus: tuple[float, float] | None, rng: Generator) -> Box:
    """A random box of ``size`` in an area, with the focus, if any, in the box's middle half.

    Along an axis on which the box is larger than the area, the box starts at 0.
    """
    start = []
    for axis in (1, 0):
        room = max(area[axis] - size[axis], 0)
        if focus is None:
            start.append(int(rng.integers(room + 1)))
        else:
            at = focus[1 - axis] - rng.uniform(0.25, 0.75) * size[axis]
            start.append(int(np.clip(round(at), 0, room)))
    return start[0], start[1], start[0] + size[1], start[1] + size[0]


def orient(patch: Patch, config: AugmentConfig, rng: Generator) -> Patch:
    """Random flips and rotations by multiples of 90 degrees."""
    if config.flip:
        flips = rng.random(2) < 0.5
        patch = flip_x(patch) if flips[0] else patch
        patch = flip_y(patch) if flips[1] and config.flip_vertical else patch
    return rot90(patch, int(rng.integers(4))) if config.rot90 else patch


def photometric(image: NDArray[np.uint8], config: AugmentConfig, rng: Generator) -> NDArray[np.uint8]:
    """Random brightness, contrast, gamma, blur and noise, in this order."""
    if not any((config.brightness, config.contrast, config.gamma, config.blur, config.noise)):
        return image
    grey: NDArray[Any] = image.astype(np.float32)
    grey *= 1 + rng.uniform(-config.brightness, config.brightness)
    if config.contrast:
        mean = grey.mean()
        grey = (grey - mean) * (1 + rng.uniform(-config.contrast, config.contrast)) + mean
    if config.gamma:
        grey = 255 * (np.clip(grey, 0, 255) / 255) ** np.exp(rng.uniform(-config.gamma, config.gamma))
    # Below a tenth of a pixel, a Gaussian blur leaves 8-bit grey levels as they are.
    if config.blur and (sigma := rng.uniform(0, config.blur)) > 0.1:
        grey = cv2.GaussianBlur(grey, (0, 0), sigma)
    if config.noise:
        grey += rng.uniform(0, config.noise) * rng.standard_normal(grey.shape, np.float32)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
