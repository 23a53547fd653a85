"""Post-processing of a predicted frame: score, area and overlap by type of cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.data import cleaning
from kitlib.data.cleaning import CleaningConfig
from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.scores import rescore
from kitlib.records import Cell, Frame

#: Predicted frames, or those of each mask threshold.
Predictions = Sequence[Frame] | Mapping[float, Sequence[Frame]]


class Removed(NamedTuple):
    """An instance that post-processing took away, with its cleaned mask, and the reason in a few words."""

    cell: Cell
    reason: str


def apply(frame: Frame, config: PostConfig) -> Frame:
    """The frame with confident, disjoint cells only, best first.

    Post-processing is that of the frame's type (``Frame.category``) and the same for all of its cells. Masks
    are cleaned first. The area is checked before the overlap is resolved, so that specks clip nothing, and
    after it. Where no cell is left and ``keep_best`` is set, the best one of a fitting size (or else the best
    one) stays: on an image with cells a wrong guess costs nothing.
    """
    return explain(frame, config)[0]


def explain(frame: Frame, config: PostConfig) -> tuple[Frame, list[Removed]]:
    """What ``apply`` makes of a frame, and the instances that it removes."""
    of_type, calibration = config.for_category(frame.category), config.calibration(frame.category)
    cells = clean_masks(rescore(frame, config.score_kind, config.forest), of_type).cells
    areas = rle.areas([c.mask for c in cells])
    fitting = np.flatnonzero(fit_area(areas, of_type)).tolist()
    passing = [i for i in fitting if calibration or cells[i].confidence >= of_type.score_threshold]
    distinct = [passing[i] for i in overlap.unsuppressed([cells[i] for i in passing], of_type.mask_nms)]
    size = frame.height, frame.width
    clipped = overlap.clip([cells[i] for i in distinct], *size, of_type.max_clipped, of_type.split)
    clipped_areas = rle.areas([cell.mask for _, cell in clipped])
    large = [pair for pair, area in zip(clipped, clipped_areas, strict=True) if area >= of_type.min_area]
    final = large[: calibration.number(np.array([c.confidence for _, c in large]))] if calibration else large
    largest = "" if of_type.max_area is None else f" or over {of_type.max_area}"
    steps = {
        f"area under {max(of_type.min_area, 1)}{largest} pixels": fitting,
        f"score below {of_type.score_threshold:.2f}": passing,
        f"IoU with a better cell above {of_type.mask_nms:.2f}": distinct,
        f"over {of_type.max_clipped:.0%} of it lost to better cells": [distinct[i] for i, _ in clipped],
        f"under {of_type.min_area} pixels without those of better cells": [distinct[i] for i, _ in large],
        "too uncertain: it lowers the expected score": [distinct[i] for i, _ in final],
    }
    left = [cell for _, cell in final]
    if not left and config.keep_best:
        left = _best_cell([cells[i] for i in fitting] or [c for c, a in zip(cells, areas, strict=True) if a])
    stays = {id(cell) for cell in left}
    removed = [Removed(cells[i], why) for i, why in _reasons(len(cells), steps) if id(cells[i]) not in stays]
    return replace(frame, cells=tuple(left)), removed


def _reasons(number: int, steps: Mapping[str, Sequence[int]]) -> list[tuple[int, str]]:
    """Each of ``number`` instances that a step left out, and the first step that did.

    Args:
        number: of instances.
        steps: the places of the instances that are left after each step, by the reason for which others are
            not.
    """
    reasons: dict[int, str] = {}
    for reason, left in steps.items():
        kept = set(left)
        reasons |= {i: reason for i in range(number) if i not in kept and i not in reasons}
    return sorted(reasons.items())


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


def _best_cell(cells: Sequence[Cell]) -> list[Cell]:
    """The best cell alone, in a list; an empty list without cells."""
    return [cells[overlap.rank(cells)[0]]] if cells else []


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
