"""Frames with their cells drawn on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from colorsys import hls_to_rgb
from dataclasses import replace

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.typing import ColorType
from numpy.typing import NDArray

from kitlib import metric
from kitlib.data.images import read_image
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.records import Frame
from kitlib.viz import style

#: The most pixels along a side of a picture, in a panel 4 inches wide; larger frames lose rows and columns.
_PICTURE_SIDE = 1024
#: The flattest and the steepest panel, as height / width.
_ASPECTS = (0.25, 2.0)
#: Opacity of the colour inside a cell.
FILL = 0.22
#: Masks decoded at once; each may be as large as the picture.
_MASKS_AT_ONCE = 32


@style.styled
def gallery(frames: Sequence[Frame], columns: int = 3) -> Figure:
    """Frames side by side, every cell outlined in its own colour (the paper's figure 1)."""
    rows = max(1, -(-len(frames) // columns))
    figure, axes = style.figure(4 * columns, rows * (0.3 + 4 * _aspect(frames)), rows, columns)
    for panel, frame in zip(axes, frames, strict=False):
        overlay(panel, frame, rainbow(len(frame.cells)))
        style.bare(panel, _title(frame))
    style.blank(axes[len(frames) :])
    return figure


@style.styled
def before_after(truth: Sequence[Frame], predictions: Sequence[Frame]) -> Figure:
    """Image, true cells and predicted cells of each frame in a row (the paper's figure 4c).

    Predictions whose IoU with a true cell is above 0.5 are green, others red; true cells that no
    prediction matches are blue.
    """
    figure, axes = style.figure(12, max(1, len(truth)) * (0.3 + 4 * _aspect(truth)), max(1, len(truth)), 3)
    found = {frame.id: frame for frame in predictions}
    for row, frame in enumerate(truth):
        cells = found[frame.id].cells if frame.id in found else ()
        # The true frame's image, since tables of predictions name no image files.
        predicted = replace(frame, cells=cells)
        hits = rle.iou([c.mask for c in frame.cells], [c.mask for c in predicted.cells]) > 0.5
        image, left, right = axes[3 * row : 3 * row + 3]
        image.imshow(stretched(frame), cmap="gray", vmin=0, vmax=255)
        style.bare(image, _title(frame))
        overlay(left, frame, np.where(hits.any(1), style.FOUND, style.MISSED).tolist())
        style.bare(left, f"truth: {len(frame.cells)} cells, {int((~hits.any(1)).sum())} missed (blue)")
        overlay(right, predicted, np.where(hits.any(0), style.FOUND, style.WRONG).tolist())
        score = metric.score([frame], [predicted]).mean
        style.bare(right, f"predicted: {len(predicted.cells)} cells, score {score:.2f}")
    style.blank(axes[3 * len(truth) :])
    return figure


def overlay(axes: Axes, frame: Frame, colors: Sequence[ColorType]) -> None:
    """Draw a frame and its cells, each with a thin outline and a faint fill.

    Args:
        axes: to draw on.
        frame: an image and its cells; the image may be missing.
        colors: one for each cell.
    """
    grey = stretched(frame).astype(np.float32) / 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    lines, line_colors = [], []
    for (inside, box), color in zip(_drawn_cells(frame), colors, strict=True):
        x0, y0, x1, y1 = box
        patch = picture[y0:y1, x0:x1]
        patch[inside] = (1 - FILL) * patch[inside] + FILL * np.asarray(to_rgb(color))
        for outline in outlines(inside, box):
            lines.append(outline)
            line_colors.append(color)
    axes.imshow(picture)
    axes.add_collection(LineCollection(lines, colors=line_colors, linewidths=0.8))


def _drawn_cells(frame: Frame) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Each cell's mask within its box, and the box, in pixels of the picture."""
    step = _step_of(frame)
    for start in range(0, len(frame.cells), _MASKS_AT_ONCE):
        masks = [cell.mask for cell in frame.cells[start : start + _MASKS_AT_ONCE]]
        masks = masks if step == 1 else [_every_nth(mask, step) for mask in masks]
        boxes = rle.boxes(masks)
        yield from zip(rle.crops(masks, boxes), boxes, strict=True)


def _step_of(frame: Frame) -> int:
    """The n of which every n-th row and column of a frame is drawn."""
    return -(-max(frame.height, frame.width) // _PICTURE_SIDE)


def _every_nth(mask: RLE, step: int) -> RLE:
    """A mask's pixels in every ``step``-th row and column, from its runs, since the frame may be huge."""
    height, width = (-(-side // step) for side in rle.height_width(mask))
    _, row, first, end = rle.row_runs([mask])
    first, end = -(-first // step), -(-end // step)
    drawn = (row % step == 0) & (first < end)
    starts = row[drawn] // step * width
    return rle.from_runs(starts + first[drawn], (end - first)[drawn], height, width)


def outlines(inside: NDArray[np.bool_], box: NDArray) -> list[NDArray]:
    """The outlines of an (h, w) mask within its box, as closed (N, 2) lines of x, y in pixels."""
    padded = np.pad(inside.astype(np.uint8), 1)
    found, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    closed = [np.concatenate([c[:, 0], c[:1, 0]]) for c in found]
    return [c + np.array([box[0] - 1, box[1] - 1]) for c in closed]


def stretched(frame: Frame) -> NDArray[np.uint8]:
    """The drawn pixels of a frame's image, with stretched contrast; mid-grey if there is no image."""
    step = _step_of(frame)
    if frame.path is None:
        return np.full((-(-frame.height // step), -(-frame.width // step)), 128, np.uint8)
    image = read_image(frame.path, frame.height, frame.width)[::step, ::step].astype(np.float32)
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) * (225 / max(high - low, 1.0)) + 15, 0, 255).astype(np.uint8)


def rainbow(number: int) -> list[tuple[float, float, float]]:
    """Colours that differ between neighbours: hues a golden ratio apart, light enough to be seen on grey."""
    return [hls_to_rgb((0.1 + 0.618034 * i) % 1.0, 0.6, 1.0) for i in range(number)]


def _title(frame: Frame) -> str:
    cells = f"{len(frame.cells)} cells" if frame.cells else "no cells"
    return "  ".join(filter(None, [_short(frame.category or ""), _short(frame.id), cells]))


def _short(name: str) -> str:
    return name if len(name) < 18 else name[:16] + "…"


def _aspect(frames: Sequence[Frame]) -> float:
    """Height / width of the panels for frames."""
    steepest = max((f.height / f.width for f in frames), default=0.75)
    return min(max(steepest, _ASPECTS[0]), _ASPECTS[1])
