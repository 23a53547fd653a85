"""From all that the model saw to what is believed: limits of score, area and overlap by type of cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kitlib.data import cleaning
from kitlib.data.cleaning import CleaningConfig
from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.post.config import Limits, PostConfig
from kitlib.post.scores import rescore
from kitlib.records import Cell, Frame


class Voter(Protocol):
    """A cell, or what is known of one before it has a mask."""

    @property
    def category(self) -> str: ...

    @property
    def score(self) -> float | None: ...


def vote(cells: Sequence[Voter]) -> str | None:
    """The category of a frame, from the cells predicted in it; None without cells.

    A competition image holds one type of cell, but which one is not known of a test image. Each cell votes
    with its score: with its square, one certain cell outweighs the hundred faint ones of a frame whose type
    the model finds hard. Ties go to the first name in the alphabet.
    """
    votes: dict[str, float] = {}
    for cell in cells:
        votes[cell.category] = votes.get(cell.category, 0.0) + sure(cell)
    return min(votes, key=lambda name: (-votes[name], name)) if votes else None


def apply(frame: Frame, config: PostConfig) -> Frame:
    """The frame with believable, disjoint cells only, best first, and with the voted category.

    Limits are those of the frame's category, for which the box scores vote, and hold for all of its cells.
    Masks are mended first. The area is checked before the overlap is resolved, so that specks clip nothing,
    and after it. Where no cell is left and ``keep_best`` is set, the best one of a fitting size (or else the
    best one) stays: on an image with cells a wrong guess costs nothing.
    """
    category = vote(frame.cells)
    limits = config.limits(category)
    cells = mend(rescore(frame, config.score_kind, config.forest), limits).cells
    areas = rle.areas([c.mask for c in cells])
    fitting = [c for c, fit in zip(cells, fits(areas, limits), strict=True) if fit]
    calibration = config.calibration(category)
    passing = [c for c in fitting if calibration or sure(c) >= limits.score]
    clipped = overlap.resolve(
        passing, frame.height, frame.width, limits.max_clipped, limits.split, limits.mask_nms
    )
    left = rle.areas([c.mask for c in clipped])
    kept = [c for c, area in zip(clipped, left, strict=True) if area >= limits.min_area]
    if calibration:
        kept = kept[: calibration.number(np.array([sure(c) for c in kept]))]
    if not kept and config.keep_best:
        kept = best(fitting or [c for c, area in zip(cells, areas, strict=True) if area])
    return replace(frame, cells=tuple(kept), category=category)


def apply_each(
    frames: Sequence[Frame], config: PostConfig, say: Callable[[str], object] = print
) -> list[Frame]:
    """``apply`` of every frame of a submission, which has to come: one that it fails on is told and goes
    without cells."""
    done = []
    for frame in frames:
        try:
            done.append(apply(frame, config))
        except Exception as error:
            say(f"{frame.id} is left empty: {type(error).__name__}: {error}")
            done.append(replace(frame, cells=()))
    return done


def sure(cell: Voter) -> float:
    """A cell's score; an annotated cell is certain."""
    return 1.0 if cell.score is None else cell.score


def mend(frame: Frame, limits: Limits) -> Frame:
    """The frame with its masks filled or freed of stray parts, as the limits ask."""
    config = CleaningConfig(fill_holes=limits.fill_holes, keep_largest=limits.largest_only)
    return cleaning.clean([frame], config)[0]


def fits(areas: NDArray[np.int64], limits: Limits) -> NDArray[np.bool_]:
    """Which areas are within the limits; that of an empty mask never is."""
    most = np.inf if limits.max_area is None else limits.max_area
    return (areas >= max(limits.min_area, 1)) & (areas <= most)


def best(cells: Sequence[Cell]) -> list[Cell]:
    """The best cell alone, in a list; an empty list without cells."""
    return [cells[overlap.rank(cells)[0]]] if cells else []


#: Predicted frames, or those of each mask threshold.
Predictions = Sequence[Frame] | Mapping[float, Sequence[Frame]]


def by_level(predictions: Predictions) -> dict[float, dict[str, Frame]]:
    """Frames by mask threshold and id, the usual threshold first; a single table is one of 0.5."""
    tables = predictions if isinstance(predictions, Mapping) else {0.5: predictions}
    ordered = sorted(tables, key=lambda level: (abs(level - 0.5), level))
    return {level: {f.id: f for f in tables[level]} for level in ordered}


def nearest(levels: Sequence[float], wanted: float) -> float:
    """The level that is nearest to the wanted one; the first of equals."""
    return min(levels, key=lambda level: abs(level - wanted))


def pick(found: Mapping[float, Frame], config: PostConfig) -> Frame:
    """Of one frame at several mask thresholds, the usual one first, the one at the threshold of its type: for
    that the cells of the first vote, as they do while predicting."""
    category = vote(next(iter(found.values())).cells)
    return found[nearest(list(found), config.limits(category).mask_threshold)]
