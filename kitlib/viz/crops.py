"""The parts of images where something is wrong, enlarged, with outlines and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from kitlib.analysis.errors import Error
from kitlib.analysis.suspects import Suspect
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.records import Frame
from kitlib.viz import style
from kitlib.viz.cells import outlines, stretched

# A crop is this many times as long as the cells in it, and has at least so many pixels along a side.
_CONTEXT = 2.0
_LEAST_SIDE = 64
_COLUMNS = 4


class _Crop(NamedTuple):
    """What a panel shows: a frame, true and predicted cells, some of them in question, and a caption."""

    frame: Frame
    truth: Sequence[RLE]
    predicted: Sequence[RLE]
    chosen_truth: Sequence[int]
    chosen_predicted: Sequence[int]
    caption: str


@style.styled
def worst_errors(truth: Sequence[Frame], predictions: Sequence[Frame], errors: Sequence[Error]) -> Figure:
    """The surroundings of errors: true cells in blue, predicted ones dashed in orange, others faint.

    Args:
        truth: frames with their true cells and images.
        predictions: the frames in which the errors were found.
        errors: a panel each, such as those of ``errors.worst``.
    """
    frames, found = _by_id(truth), _by_id(predictions)
    crops = []
    for error in errors:
        frame = frames[error.frame_id]
        predicted = found[error.frame_id].cells if error.frame_id in found else ()
        scores = [predicted[i].score for i in error.predicted]
        numbers = [f"IoU {error.iou:.2f}"] if error.truth and error.predicted else []
        numbers += [f"score {score:.2f}" for score in scores[:2] if score is not None]
        caption = f"{error.kind}  {_place(frame)}\n{', '.join(numbers) or 'nothing predicted here'}"
        masks = [c.mask for c in frame.cells], [c.mask for c in predicted]
        crops.append(_Crop(frame, *masks, error.truth, error.predicted, caption))
    return _sheet(crops, "true", "predicted")


@style.styled
def suspect_cells(
    truth: Sequence[Frame], predictions: Sequence[Frame], suspects: Sequence[Suspect]
) -> Figure:
    """The surroundings of likely annotation errors: the annotation in blue, the prediction dashed in orange.

    Args:
        truth: frames with their annotated cells and images.
        predictions: the frames that the suspects were found with.
        suspects: a panel each, such as the first ones of ``suspects.find``.
    """
    frames, found = _by_id(truth), _by_id(predictions)
    crops = []
    for suspect in suspects:
        frame = frames[suspect.frame_id]
        # Of all raw instances only the one in question is drawn.
        predicted = [] if suspect.predicted is None else [found[frame.id].cells[suspect.predicted].mask]
        chosen = [] if suspect.cell is None else [suspect.cell]
        name = f"cell {suspect.cell}" if suspect.cell is not None else "no cell"
        caption = f"{suspect.reason}  {suspect.score:.2f}\n{_place(frame)}  {name}"
        masks = [cell.mask for cell in frame.cells]
        crops.append(_Crop(frame, masks, predicted, chosen, range(len(predicted)), caption))
    return _sheet(crops, "annotated", "predicted")


def _by_id(frames: Sequence[Frame]) -> dict[str, Frame]:
    return {frame.id: frame for frame in frames}


def _place(frame: Frame) -> str:
    return " ".join(filter(None, [frame.category, style.short_names([frame.id], 16)[0]]))


def _sheet(crops: Sequence[_Crop], true: str, predicted: str) -> Figure:
    rows = max(1, -(-len(crops) // _COLUMNS))
    figure, axes = style.figure(3 * _COLUMNS, 3.5 * rows, rows, _COLUMNS)
    pictures: dict[str, NDArray[np.uint8]] = {}
    for panel, crop in zip(axes, crops, strict=False):
        if crop.frame.id not in pictures:
            pictures[crop.frame.id] = stretched(crop.frame, step=1)
        _panel(panel, crop, pictures[crop.frame.id])
    style.blank(axes[len(crops) :])
    if crops:
        lines = [
            Line2D([], [], color=style.MISSED, lw=2, label=f"{true}, in question"),
            Line2D([], [], color=style.WRONG, lw=2, ls="--", label=f"{predicted}, in question"),
            Line2D([], [], color=_FAINT_TRUE, lw=1, label=f"other {true} cells"),
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=3)
    return figure


_FAINT_TRUE, _FAINT_PREDICTED = (to_hex(style.tint(c, 0.5)) for c in (style.MISSED, style.WRONG))


def _panel(axes: Axes, crop: _Crop, picture: NDArray[np.uint8]) -> None:
    chosen = [crop.truth[i] for i in crop.chosen_truth] + [crop.predicted[i] for i in crop.chosen_predicted]
    x0, y0, x1, y1 = _window(rle.boxes(chosen), crop.frame)
    axes.imshow(picture[y0:y1, x0:x1], cmap="gray", vmin=0, vmax=255, extent=(x0, x1, y1, y0))
    _outline(axes, crop.truth, crop.chosen_truth, style.MISSED, _FAINT_TRUE, "solid")
    _outline(axes, crop.predicted, crop.chosen_predicted, style.WRONG, _FAINT_PREDICTED, "dashed")
    axes.set_xlim(x0, x1)
    axes.set_ylim(y1, y0)
    style.bare(axes, crop.caption)


def _window(boxes: NDArray[np.int64], frame: Frame) -> tuple[int, int, int, int]:
    """A square around boxes, shifted into the frame and cut to it."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(max(_CONTEXT * (high - low).max(), _LEAST_SIDE))
    size = np.array([frame.width, frame.height])
    start = np.clip((low + high - side) // 2, 0, np.maximum(size - side, 0))
    x0, y0 = start.tolist()
    x1, y1 = np.minimum(start + side, size).tolist()
    return x0, y0, x1, y1


def _outline(
    axes: Axes,
    masks: Sequence[RLE],
    chosen: Sequence[int],
    strong: str,
    faint: str,
    dashes: str,
) -> None:
    """Outline all masks, the chosen ones strongly."""
    boxes = rle.boxes(masks)
    wanted = set(chosen)
    for is_chosen, color, width in ((False, faint, 0.7), (True, strong, 1.6)):
        places = [i for i in range(len(masks)) if (i in wanted) == is_chosen]
        crops = rle.crops([masks[i] for i in places], boxes[places])
        # Pixels are squares from their number to the next one; an outline passes through their centres.
        lines = [
            line + 0.5 for i, inside in zip(places, crops, strict=True) for line in outlines(inside, boxes[i])
        ]
        axes.add_collection(LineCollection(lines, colors=[color], linewidths=width, linestyles=dashes))
