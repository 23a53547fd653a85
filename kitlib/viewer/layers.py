"""What the viewer shows of each frame: annotated, predicted, pseudo-labelled and removed cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from kitlib.errors import KitError, unknown
from kitlib.post import thresholds
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.thresholds import Predictions, Step
from kitlib.records import Cell, Frame

#: The layers that may be given beside the annotated cells of the frames.
PREDICTION, PSEUDO = "prediction", "pseudo labels"


@dataclass(frozen=True)
class Thresholds:
    """Where the sliders stand: score and mask threshold, each None for what post-processing was tuned to."""

    score: float | None = None
    mask: float | None = None


class Removed(NamedTuple):
    """An instance that was removed, with its cleaned mask, and the reason in a few words."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Predicted:
    """The predicted cells of one frame that are left, those that were removed, and the thresholds used."""

    frame: Frame
    removed: Sequence[Removed]
    score_threshold: float
    mask_threshold: float


@dataclass(frozen=True)
class Layers:
    """The cells of all frames.

    Attributes:
        frames: images with their annotated cells, by id.
        annotated: whether their cells are annotations; False where no frame has any.
        predictions: predicted frames by mask threshold and id.
        pseudo: pseudo-labelled frames by id.
        post: post-processing of the predictions; without it, the score threshold alone removes cells.
    """

    frames: Mapping[str, Frame]
    annotated: bool
    predictions: Mapping[float, Mapping[str, Frame]] = field(default_factory=dict)
    pseudo: Mapping[str, Frame] = field(default_factory=dict)
    post: PostConfig | None = None

    def predicted(self, frame_id: str, asked: Thresholds) -> Predicted | None:
        """The predicted cells of a frame at these thresholds; None where it was not predicted."""
        found = {mask: table[frame_id] for mask, table in self.predictions.items() if frame_id in table}
        if not found:
            return None
        config = self.post or PostConfig()
        frame = thresholds.at_mask_threshold(found, config)
        if asked.mask is not None:
            frame = found[thresholds.nearest(list(found), asked.mask)]
        mask_threshold = next(mask for mask, each in found.items() if each is frame)
        if self.post is None:
            left, removed = _above(frame, asked.score or 0.0)
            return Predicted(left, removed, asked.score or 0.0, mask_threshold)
        if asked.score is not None:
            # A calibration would choose in place of the score threshold.
            config = replace(config, score_threshold={"default": asked.score}, calibrations={})
        of_type = config.for_category(frame.category)
        lowest = 0.0 if config.calibration(frame.category) else of_type.score_threshold
        steps = thresholds.steps(frame, config)
        left = replace(frame, cells=tuple(steps[-1].cells.values()))
        return Predicted(left, explain(steps, of_type), lowest, mask_threshold)


def explain(steps: Sequence[Step], config: CategoryConfig) -> list[Removed]:
    """The instances that post-processing removed, in their order, each with the step that did it in words.

    Args:
        steps: of ``thresholds.steps``.
        config: the post-processing of the frame's type.
    """
    largest = "" if config.max_area is None else f" or over {config.max_area}"
    reasons = {
        "area": f"area under {max(config.min_area, 1)}{largest} pixels",
        "score threshold": f"score below {config.score_threshold:.2f}",
        "mask NMS": f"IoU with a better cell above {config.mask_nms:.2f}",
        "overlap": f"over {config.max_clipped:.0%} of it lost to better cells",
        "area left": f"under {config.min_area} pixels without those of better cells",
        "expected gain": "too uncertain: it lowers the expected score",
    }
    left = {
        place: after.name for before, after in pairwise(steps) for place in before.cells.keys() - after.cells
    }
    whole = {step.name: step.cells for step in steps}["masks cleaned"]
    places = sorted(left.keys() - steps[-1].cells)
    return [Removed(whole[place], reasons[left[place]]) for place in places]


def gather(
    frames: Sequence[Frame], layers: Mapping[str, Predictions], post: PostConfig | None = None
) -> Layers:
    """The layers of frames.

    Args:
        frames: images with their annotated cells, if they have any.
        layers: "prediction" and "pseudo labels", each as frames or, of predictions, as frames by mask
            threshold; frames that are not among ``frames`` are passed over.
        post: post-processing of the predictions.

    Raises:
        KitError: no frames, an unknown layer, one without any of the frames, or a frame of another size.
    """
    if not frames:
        raise KitError("there is no frame to show; give at least one")
    shown = {frame.id: frame for frame in frames}
    for name, given in layers.items():
        if name not in (PREDICTION, PSEUDO):
            raise unknown("layer", name, (PREDICTION, PSEUDO))
        _check(name, given, shown)
    pseudo = thresholds.by_mask_threshold(layers.get(PSEUDO, ()))
    predictions = thresholds.by_mask_threshold(layers[PREDICTION]) if PREDICTION in layers else {}
    annotated = any(len(frame.cells) for frame in frames)
    return Layers(shown, annotated, predictions, next(iter(pseudo.values())), post)


def _check(name: str, given: Predictions, shown: Mapping[str, Frame]) -> None:
    tables = given.values() if isinstance(given, Mapping) else [given]
    found = [frame for table in tables for frame in table if frame.id in shown]
    if not found:
        raise KitError(f"no frame of the layer '{name}' is among the frames; give those of the same images")
    for frame in found:
        size = shown[frame.id].height, shown[frame.id].width
        if (frame.height, frame.width) != size:
            raise KitError(
                f"the layer '{name}' has a frame {frame.id} of {frame.width} x {frame.height} pixels, but "
                f"the image has {size[1]} x {size[0]}; predict it at its own size"
            )


def _above(frame: Frame, score_threshold: float) -> tuple[Frame, list[Removed]]:
    """The cells of a score from the threshold on, and the others."""
    left = tuple(cell for cell in frame.cells if cell.confidence >= score_threshold)
    reason = f"score below {score_threshold:.2f}"
    removed = [Removed(cell, reason) for cell in frame.cells if cell.confidence < score_threshold]
    return replace(frame, cells=left), removed
