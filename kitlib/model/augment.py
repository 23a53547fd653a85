"""Random views of frames for training: where to look, how large, which way round, how bright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from kitlib import rle
from kitlib.config import Float, Int, Positive, Share, configuration
from kitlib.model import tiles
from kitlib.model.patch import Box, Patch, flip_x, flip_y, turn
from kitlib.records import Frame

Size = tuple[int, int]  # height, width in pixels
_Side = Annotated[Int, Field(gt=0)]
PositiveSize = tuple[_Side, _Side]
Range = tuple[Positive, Positive]


@configuration
class AugmentConfig:
    """What may be done to a training image. None and 0 mean off."""

    tile: PositiveSize | None = None
    """Height and width of the tile that is first cut from the frame, in the frame's own pixels."""
    tile_stride: PositiveSize | None = None
    """Tiles lie on a grid with these distances; anywhere if None."""
    tile_long_side: Range | None = None
    """A tile is resized so that its longer side has a length drawn from this range, in pixels."""
    scale: Range = (1.0, 1.0)
    """The frame (the tile, if there is no tile_long_side) is resized by a factor drawn from this range."""
    scale_by_type: dict[str, Range] = Field(default_factory=dict)
    """Other ranges for the frames of a type: a crop that shows a hundred neurons may cut through every
    astrocyte. Where a first prediction at one scale has to tell the types (PredictConfig.scales_by_type),
    every range should hold that scale, or the model tells the types by how blurred they are."""
    crop: PositiveSize | None = None
    """Height and width of what is then cut out; a smaller image is padded with its median grey."""
    cell_centred: Share = 0.5
    """Share of tiles and crops placed so that a randomly drawn cell lies in their middle half."""
    flip: bool = True
    """Left-right and top-bottom, each half of the time."""
    flip_vertical: bool = True
    """If False, flip is left-right only, as detectron2's default is."""
    rot90: bool = True
    """By 0, 90, 180 or 270 degrees."""
    brightness: Share = 0.0
    """Grey levels are multiplied by a factor from 1 - b to 1 + b."""
    contrast: Share = 0.0
    """The distance of grey levels from their mean is multiplied by a factor from 1 - c to 1 + c."""
    gamma: Float = Field(0.0, ge=0)
    """Exponent on 0..1, drawn from exp(-g) to exp(g)."""
    blur: Float = Field(0.0, ge=0)
    """Gaussian of up to this standard deviation, in pixels."""
    noise: Float = Field(0.0, ge=0)
    """Gaussian of up to this standard deviation, in grey levels."""
    copy_paste: Share = 0.0
    """Probability of pasting cells of another frame of the same type (Ghiasi et al., "Simple Copy-Paste",
    2021)."""
    mosaic: Share = 0.0
    """Probability of putting the image together from four frames of the same type."""
    min_visible: Share = 0.25
    """A cell stays when more than this share of it does."""

    def __post_init__(self) -> None:
        ranges = {"tile_long_side": self.tile_long_side, "scale": self.scale}
        ranges |= {f"scale_by_type of {name}": values for name, values in self.scale_by_type.items()}
        for name, values in ranges.items():
            if values is not None and values[0] > values[1]:
                raise ValueError(f"{name} must be (lowest, highest), not {values}")
        if self.tile is None and (self.tile_stride or self.tile_long_side):
            raise ValueError("tile_stride and tile_long_side need a tile; set tile too, or remove them")


OFF = AugmentConfig(cell_centred=0.0, flip=False, rot90=False)


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
