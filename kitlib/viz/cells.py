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
# Width of the stripes in ignored areas, in pixels along a row.
_STRIPE = 5


@style.styled
def gallery(frames: Sequence[Frame], columns: int = 3) -> Figure:
    """Frames side by side, every cell outlined in its own colour (the paper's figure 1).

    Areas that training ignores, because nobody knows what lies there, are striped in yellow.
    """
    rows = max(1, -(-len(frames) // columns))
    figure, axes = style.figure(4 * columns, rows * (0.3 + 4 * _aspect(frames)), rows, columns)
    for panel, frame, title in zip(axes, frames, _titles(frames), strict=False):
        overlay(panel, frame, rainbow(len(frame.cells)))
        style.bare(panel, title)
    style.blank(axes[len(frames) :])
    return figure


@style.styled
def before_after(truth: Sequence[Frame], predictions: Sequence[Frame]) -> Figure:
    """Image, true cells and predicted cells of each frame in a row (the paper's figure 4c).

    Predictions whose IoU with a true cell is above 0.5 are green, others orange; true cells that no
    prediction matches are blue. The metric of each image stands above its predictions.
    """
    figure, axes = style.figure(12, max(1, len(truth)) * (0.3 + 4 * _aspect(truth)), max(1, len(truth)), 3)
    found = {frame.id: frame for frame in predictions}
    for row, (frame, title) in enumerate(zip(truth, _titles(truth), strict=True)):
        cells = found[frame.id].cells if frame.id in found else ()
        # The true frame's image, since tables of predictions name no image files.
        predicted = replace(frame, cells=cells)
        hits = rle.iou([c.mask for c in frame.cells], [c.mask for c in predicted.cells]) > 0.5
        image, left, right = axes[3 * row : 3 * row + 3]
        image.imshow(stretched(frame), cmap="gray", vmin=0, vmax=255)
        style.bare(image, title)
        overlay(left, frame, np.where(hits.any(1), style.FOUND, style.MISSED).tolist())
        missed = int((~hits.any(1)).sum())
        style.bare(left, f"truth: {style.count(len(frame.cells), 'cell')}, {missed} missed (blue)")
        overlay(right, predicted, np.where(hits.any(0), style.FOUND, style.WRONG).tolist())
        score, wrong = metric.score([frame], [predicted]).mean, int((~hits.any(0)).sum())
        text = f"predicted: {style.count(len(cells), 'cell')}, {wrong} wrong (orange), score {score:.2f}"
        style.bare(right, text + _other_type(frame, found.get(frame.id)))
    style.blank(axes[3 * len(truth) :])
    return figure


def _other_type(truth: Frame, predicted: Frame | None) -> str:
    """The predicted type, where it is not the true one."""
    wrong = predicted is not None and predicted.category not in (None, truth.category)
    return f",\ntaken for {predicted.category}" if predicted and wrong and truth.category else ""


def overlay(axes: Axes, frame: Frame, colors: Sequence[ColorType]) -> None:
    """Draw a frame and its cells, each with a thin outline and a faint fill.

    Args:
        axes: to draw on.
        frame: an image and its cells; the image may be missing.
        colors: one for each cell.
    """
    ignored = None if frame.ignore is None else _ignored_pixels(frame, frame.ignore)
    draw(axes, stretched(frame), list(_drawn_cells(frame)), colors, ignored)


def _ignored_pixels(frame: Frame, mask: RLE) -> NDArray[np.bool_]:
    step = _step_of(frame)
    return rle.to_mask(mask if step == 1 else _every_nth(mask, step))


def draw(
    axes: Axes,
    grey: NDArray[np.uint8],
    cells: Sequence[tuple[NDArray[np.bool_], NDArray]],
    colors: Sequence[ColorType],
    ignored: NDArray[np.bool_] | None = None,
) -> None:
    """Draw a picture and cells on it.

    Args:
        axes: to draw on.
        grey: (H, W) grey levels.
        cells: each cell's mask within its box, and the box (x0, y0, x1, y1) in the picture, half-open.
        colors: one for each cell.
        ignored: (H, W), the pixels that training ignores, if any.
    """
    picture = np.repeat((grey.astype(np.float32) / 255)[..., None], 3, axis=2)
    if ignored is not None:
        stripes = ignored & (np.add.outer(*map(np.arange, grey.shape)) // _STRIPE % 2 == 0)
        picture[stripes] = 0.5 * picture[stripes] + 0.5 * np.asarray(to_rgb(style.IGNORED))
    lines, line_colors = [], []
    for (inside, box), color in zip(cells, colors, strict=True):
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


def stretched(frame: Frame, step: int | None = None) -> NDArray[np.uint8]:
    """The drawn pixels of a frame's image, with stretched contrast; mid-grey if there is no image.

    Args:
        frame: with its image, which may be missing.
        step: every how many rows and columns are drawn; None for as many as a panel can show.
    """
    step = step or _step_of(frame)
    if frame.path is None:
        return np.full((-(-frame.height // step), -(-frame.width // step)), 128, np.uint8)
    image = read_image(frame.path, frame.height, frame.width)[::step, ::step].astype(np.float32)
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) * (225 / max(high - low, 1.0)) + 15, 0, 255).astype(np.uint8)


def rainbow(number: int) -> list[tuple[float, float, float]]:
    """Colours that differ between neighbours: hues a golden ratio apart, light enough to be seen on grey."""
    return [hls_to_rgb((0.1 + 0.618034 * i) % 1.0, 0.6, 1.0) for i in range(number)]


def _titles(frames: Sequence[Frame]) -> list[str]:
    """Type, name and number of cells of each frame, by which frames are told apart, and what is ignored."""
    names = style.short_names([frame.id for frame in frames])
    return [_title(frame, name) for frame, name in zip(frames, names, strict=True)]


def _title(frame: Frame, name: str) -> str:
    category = style.short_names([frame.category or ""], 16)[0]
    cells = style.count(len(frame.cells), "cell") if frame.cells else "no cells"
    title = "  ".join(filter(None, [category, name, cells]))
    if frame.ignore is None:
        return title
    share = rle.areas([frame.ignore])[0] / (frame.height * frame.width)
    return f"{title}\n{share:.0%} of the area ignored in training (striped)"


def _aspect(frames: Sequence[Frame]) -> float:
    """Height / width of the panels for frames."""
    steepest = max((f.height / f.width for f in frames), default=0.75)
    return min(max(steepest, _ASPECTS[0]), _ASPECTS[1])
