"""Frames as PNG: the image alone for the front end, and with its cells for readers without one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kitlib.data.images import read_image
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.viz import style
from kitlib.viz.cells import outlines

#: A colour for each layer, and for what a comparison calls a cell: light, since they lie on grey, and for the
#: colour-blind. Missed cells are annotated ones.
COLORS = {
    "truth": "#5CC3FF",
    "prediction": "#FFB000",
    "pseudo labels": "#F08CC8",
    "removed": "#F5EE6E",
    "matched": "#2EE6A6",
    "wrong": "#FF6B45",
    "missed": "#5CC3FF",
}
# The most pixels along a side of the image that is sent; of larger ones rows and columns are left out.
_SIDE = 4096
# The width that a picture with cells has at least, so that its outlines are thin beside the cells.
_WIDTH = 600
_FONT_SIZE = 14


def png(frame: Frame) -> bytes:
    """A frame's image with stretched contrast, as PNG; mid-grey where there is no image."""
    return cv2.imencode(".png", _grey(frame))[1].tobytes()


def drawn(frame: Frame, cells: Mapping[str, Sequence[Cell]], title: str) -> bytes:
    """A frame's image with outlined cells, as PNG.

    Args:
        frame: the image.
        cells: the cells of each layer, whose colours ``COLORS`` has.
        title: stands above the image, with the names and numbers of the layers.
    """
    grey = _grey(frame)
    scale = max(1, -(-_WIDTH // grey.shape[1]))
    size = (grey.shape[1] * scale, grey.shape[0] * scale)
    canvas = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)
    zoom = np.array([size[0] / frame.width, size[1] / frame.height])
    for name, given in cells.items():
        color = [round(255 * part) for part in to_rgb(COLORS[name])]
        lines = [((line + 0.5) * zoom).round().astype(np.int32) for line in _lines(given)]
        cv2.polylines(canvas, lines, True, color, 1, cv2.LINE_AA)
    picture = Image.fromarray(np.vstack([_heading(size[0], cells, title), canvas]))
    written = io.BytesIO()
    # A palette: notebooks keep the picture as text, and it takes a third of the room.
    picture.quantize(128, Image.Quantize.FASTOCTREE).save(written, "PNG", optimize=True)
    return written.getvalue()


def _grey(frame: Frame) -> NDArray[np.uint8]:
    step = -(-max(frame.height, frame.width) // _SIDE)
    if frame.path is None:
        return np.full((-(-frame.height // step), -(-frame.width // step)), 128, np.uint8)
    image = read_image(frame.path, frame.height, frame.width)[::step, ::step].astype(np.float32)
    low, high = np.percentile(image, [0.3, 99.7])
    return np.clip((image - low) * (235 / max(high - low, 1.0)) + 10, 0, 255).astype(np.uint8)


def _lines(cells: Sequence[Cell]) -> list[NDArray]:
    masks = [cell.mask for cell in cells]
    boxes = rle.boxes(masks)
    crops = zip(rle.crops(masks, boxes), boxes, strict=True)
    return [line for inside, box in crops for line in outlines(inside, box)]


def _heading(width: int, cells: Mapping[str, Sequence[Cell]], title: str) -> NDArray[np.uint8]:
    """A white strip with the title, and each layer's name in front of its colour."""
    strip = Image.new("RGB", (width, 2 * _FONT_SIZE), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_FONT_SIZE)
    x, y = 6.0, _FONT_SIZE // 2
    draw.text((x, y - 2), title, style.INK, font)
    x += draw.textlength(title, font) + 18
    for name, given in cells.items():
        draw.rectangle((x, y + 1, x + 10, y + 11), COLORS[name], "#777777")
        draw.text((x + 15, y - 2), f"{len(given)} {name}", style.INK, font)
        x += 15 + draw.textlength(f"{len(given)} {name}", font) + 14
    return np.asarray(strip)
