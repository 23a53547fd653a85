"""Post-processing of a predicted frame: score, area and overlap by type of cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kitlib.data import cleaning
from kitlib.data.cleaning import CleaningConfig
from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.scores import rescore
from kitlib.records import Cell, Frame, rank

#: Predicted frames, or those of each mask threshold.
Predictions = Sequence[Frame] | Mapping[float, Sequence[Frame]]


@dataclass(frozen=True)
class Step:
    """A frame's cells after one step of post-processing.

    Attributes:
        name: of the step, one of ``STEPS``.
        cells: what is left, by its place among the predicted cells; masks may have changed.
    """

    name: str
    cells: dict[int, Cell]


#: The steps in their order.
STEPS = (
    *("predicted", "masks cleaned", "area", "score threshold", "mask NMS", "overlap", "area left"),
    *("expected gain", "best cell stays"),
)


def apply(frame: Frame, config: PostConfig) -> Frame:
    """The frame with confident, disjoint cells only, best first.

    Post-processing is that of the frame's type (``Frame.category``) and the same for all of its cells. Masks
    are cleaned first. The area is checked before the overlap is resolved, so that specks clip nothing, and
    after it. Where no cell is left and ``keep_best`` is set, the best one of a fitting size (or else the best
    one) stays: on an image with cells a wrong guess costs nothing.
    """
    return replace(frame, cells=tuple(steps(frame, config)[-1].cells.values()))


def steps(frame: Frame, config: PostConfig) -> list[Step]:
    """What is left of a frame's cells after each of ``STEPS``; ``apply`` is the last of them."""
    of_type, calibration = config.for_category(frame.category), config.calibration(frame.category)
    scored = rescore(frame, config.score_kind, config.forest)
    cleaned = dict(enumerate(clean_masks(scored, of_type).cells))
    fitting = _fitting(cleaned, of_type)
    passing = {
        i: cell for i, cell in fitting.items() if calibration or cell.confidence >= of_type.score_threshold
    }
    numbers = list(passing)
    order = overlap.nms(list(passing.values()), of_type.mask_nms)
    apart = {numbers[place]: passing[numbers[place]] for place in order}
    clipped = overlap.disjoint(apart, frame.height, frame.width, of_type.max_clipped, of_type.split)
    left = _fitting(clipped, replace(of_type, max_area=None))
    number = calibration.number(np.array([c.confidence for c in left.values()])) if calibration else len(left)
    chosen = dict(list(left.items())[:number])
    final = chosen
    if not chosen and config.keep_best:
        final = _best_cell(fitting or _fitting(cleaned, CategoryConfig(min_area=1)))
    found = (dict(enumerate(scored.cells)), cleaned, fitting, passing, apart, clipped, left, chosen, final)
    return [Step(name, cells) for name, cells in zip(STEPS, found, strict=True)]


def apply_each(
    frames: Sequence[Frame], config: PostConfig, say: Callable[[str], object] = print
) -> list[Frame]:
    """``apply`` of every frame of a submission, which has to come.

    Args:
        frames: predicted frames.
        config: post-processing.
        say: gets a sentence about each frame on which ``apply`` fails; such a frame has no cells.
    """
    done = []
    for frame in frames:
        try:
            done.append(apply(frame, config))
        except Exception as error:
            say(f"{frame.id} is left empty: {type(error).__name__}: {error}")
            done.append(replace(frame, cells=()))
    return done


def clean_masks(frame: Frame, config: CategoryConfig) -> Frame:
    """The frame with holes filled or stray parts removed, as the configuration asks."""
    wanted = CleaningConfig(fill_holes=config.fill_holes, keep_largest=config.largest_only)
    return cleaning.clean([frame], wanted)[0]


def fit_area(areas: NDArray[np.int64], config: CategoryConfig) -> NDArray[np.bool_]:
    """Which areas are from ``min_area`` to ``max_area``; that of an empty mask never is."""
    most = np.inf if config.max_area is None else config.max_area
    return (areas >= max(config.min_area, 1)) & (areas <= most)


def _fitting(cells: Mapping[int, Cell], config: CategoryConfig) -> dict[int, Cell]:
    fits = fit_area(rle.areas([cell.mask for cell in cells.values()]), config)
    return {number: cell for (number, cell), stays in zip(cells.items(), fits, strict=True) if stays}


def _best_cell(cells: Mapping[int, Cell]) -> dict[int, Cell]:
    """The best cell alone; nothing without cells."""
    if not cells:
        return {}
    best = list(cells)[rank(list(cells.values()))[0]]
    return {best: cells[best]}


def by_mask_threshold(predictions: Predictions) -> dict[float, dict[str, Frame]]:
    """Frames by mask threshold and id, the threshold nearest to 0.5 first; a single table is one of 0.5."""
    tables = predictions if isinstance(predictions, Mapping) else {0.5: predictions}
    ordered = sorted(tables, key=lambda threshold: (abs(threshold - 0.5), threshold))
    return {threshold: {f.id: f for f in tables[threshold]} for threshold in ordered}


def nearest(mask_thresholds: Sequence[float], wanted: float) -> float:
    """The mask threshold that is nearest to the wanted one; the first of equals."""
    return min(mask_thresholds, key=lambda threshold: abs(threshold - wanted))


def at_mask_threshold(predicted: Mapping[float, Frame], config: PostConfig) -> Frame:
    """Of one frame at several mask thresholds, the one at the threshold for its type."""
    category = next(iter(predicted.values())).category
    return predicted[nearest(list(predicted), config.for_category(category).mask_threshold)]
