"""Random views of frames for training: where to look, how large, which way round, how bright."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kitlib.inputs import tiles
from kitlib.inputs.config import AugmentConfig, Size
from kitlib.inputs.patch import Box, Patch, flip_x, flip_y, turn
from kitlib.masks import rle
from kitlib.records import Frame


@dataclass(frozen=True)
class View:
    """What part of a frame is seen, and how large.

    Attributes:
        source: the part of the frame, in its own pixels.
        size: what that part is resized to.
        window: what is cut from the resized part; may stick out of it.
    """

    source: Box
    size: Size
    window: Box

    def near(self) -> Box:
        """The part of the frame, in its own pixels, that has any influence on the window."""
        x0, y0, x1, y1 = self.window
        scale_x = (self.source[2] - self.source[0]) / self.size[1]
        scale_y = (self.source[3] - self.source[1]) / self.size[0]
        left, top = int(np.floor(x0 * scale_x)) - 1, int(np.floor(y0 * scale_y)) - 1
        right, bottom = int(np.ceil(x1 * scale_x)) + 1, int(np.ceil(y1 * scale_y)) + 1
        x, y = self.source[:2]
        return left + x, top + y, right + x, bottom + y


# ---------------------------------------------------------------------------------------------- where to look


def draw_view(frame: Frame, config: AugmentConfig, rng: Generator, crop: Size | None = None) -> View:
    """Draw tile, scale and crop.

    Args:
        crop: size of the crop in place of ``config.crop``.
    """
    focus = _draw_cell(frame, config, rng)
    source = _draw_tile(frame, config, rng, focus)
    height, width = source[3] - source[1], source[2] - source[0]
    size = _draw_size(height, width, frame.category, config, rng)
    crop = crop or config.crop or size
    if focus is not None:
        focus = (focus[0] - source[0]) * size[1] / width, (focus[1] - source[1]) * size[0] / height
    return View(source, size, _place(crop, size, focus, rng))


def _draw_cell(frame: Frame, config: AugmentConfig, rng: Generator) -> tuple[float, float] | None:
    """The middle of a random cell, x and y, for the share of views that are placed around one."""
    if config.cell_centred <= rng.random() or not frame.cells:
        return None
    x0, y0, x1, y1 = rle.boxes([frame.cells[rng.integers(len(frame.cells))].mask])[0].tolist()
    return (x0 + x1) / 2, (y0 + y1) / 2


def _draw_tile(frame: Frame, config: AugmentConfig, rng: Generator, focus: tuple[float, float] | None) -> Box:
    if config.tile is None:
        return 0, 0, frame.width, frame.height
    if config.tile_stride is None:
        size = min(config.tile[0], frame.height), min(config.tile[1], frame.width)
        return _place(size, (frame.height, frame.width), focus, rng)
    boxes = tiles.grid(frame.height, frame.width, config.tile, config.tile_stride)
    if focus is not None:
        x, y = focus
        boxes = boxes[(boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])]
    x0, y0, x1, y1 = boxes[rng.integers(len(boxes))].tolist()
    return x0, y0, x1, y1


def _draw_size(height: int, width: int, category: str | None, config: AugmentConfig, rng: Generator) -> Size:
    if config.tile_long_side is not None:
        factor = rng.uniform(*config.tile_long_side) / max(height, width)
    else:
        factor = rng.uniform(*config.scale_by_type.get(category or "", config.scale))
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _place(size: Size, area: Size, focus: tuple[float, float] | None, rng: Generator) -> Box:
    """A box of ``size`` within an area, anywhere or with the focus in its middle half; at 0 where it is
    larger."""
    start = []
    for axis in (1, 0):
        room = max(area[axis] - size[axis], 0)
        if focus is None:
            start.append(int(rng.integers(room + 1)))
        else:
            at = focus[1 - axis] - rng.uniform(0.25, 0.75) * size[axis]
            start.append(int(np.clip(round(at), 0, room)))
    return start[0], start[1], start[0] + size[1], start[1] + size[0]


# -------------------------------------------------------------------------------- which way, how bright


def orient(patch: Patch, config: AugmentConfig, rng: Generator) -> Patch:
    """Random flips and quarter turns."""
    if config.flip:
        flips = rng.random(2) < 0.5
        patch = flip_x(patch) if flips[0] else patch
        patch = flip_y(patch) if flips[1] and config.flip_vertical else patch
    return turn(patch, int(rng.integers(4))) if config.rot90 else patch


def photometric(image: NDArray[np.uint8], config: AugmentConfig, rng: Generator) -> NDArray[np.uint8]:
    """Random brightness, contrast, gamma, blur and noise, in this order."""
    if not any((config.brightness, config.contrast, config.gamma, config.blur, config.noise)):
        return image
    levels = image.astype(np.float32)
    levels *= 1 + rng.uniform(-config.brightness, config.brightness)
    if config.contrast:
        mean = levels.mean()
        levels = (levels - mean) * (1 + rng.uniform(-config.contrast, config.contrast)) + mean
    if config.gamma:
        levels = 255 * (np.clip(levels, 0, 255) / 255) ** np.exp(rng.uniform(-config.gamma, config.gamma))
    # Below a tenth of a pixel a Gaussian does nothing to 8-bit levels.
    if config.blur and (sigma := rng.uniform(0, config.blur)) > 0.1:
        levels = cv2.GaussianBlur(levels, (0, 0), sigma)
    if config.noise:
        levels += rng.uniform(0, config.noise) * rng.standard_normal(levels.shape, np.float32)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
