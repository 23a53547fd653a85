"""From all that the model saw to what is believed: limits of score, area and overlap by type of cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kitlib import rle
from kitlib.config import Float, Int, configuration
from kitlib.data import cleaning
from kitlib.post import overlap
from kitlib.post.forest import Forest
from kitlib.post.gain import Calibration
from kitlib.post.limits import NAMES, Limits, default
from kitlib.post.rescore import Kind, rescore
from kitlib.records import Cell, Frame


@configuration
class PostConfig:
    """Post-processing of a frame's predictions: each of ``Limits`` by type, with ``default`` for others."""

    score: dict[str, Float] = Field(default_factory=default("score"))
    min_area: dict[str, Int] = Field(default_factory=default("min_area"))
    max_area: dict[str, Int | None] = Field(default_factory=default("max_area"))
    mask_nms: dict[str, Float] = Field(default_factory=default("mask_nms"))
    max_clipped: dict[str, Float] = Field(default_factory=default("max_clipped"))
    split: dict[str, overlap.Split] = Field(default_factory=default("split"))
    fill_holes: dict[str, bool] = Field(default_factory=default("fill_holes"))
    largest_only: dict[str, bool] = Field(default_factory=default("largest_only"))
    mask_threshold: dict[str, Float] = Field(default_factory=default("mask_threshold"))
    keep_best: bool = True
    """Where no cell is left, the best one stays."""
    gain: dict[str, Calibration] = Field(default_factory=dict)
    """Calibrations by type, with ``default`` for the others; where there are any, the expected gain chooses
    among instances of any score, and ``score`` plays no part."""
    score_kind: Kind = "box"
    """Which score ranks the instances and is compared with the score threshold, see ``rescore``."""
    forest: Forest | None = None
    """The trees of the learned score."""

    def limits(self, category: str | None) -> Limits:
        """The limits of a frame of this type; what is given neither for it nor as default is as in Limits."""
        given = {name: getattr(self, name) for name in NAMES}
        key = {name: category if category in table else "default" for name, table in given.items()}
        return Limits(**{name: table[key[name]] for name, table in given.items() if key[name] in table})

    def calibration(self, category: str | None) -> Calibration | None:
        """The calibration for a frame of this type; None where its score decides."""
        return self.gain.get(category or "default", self.gain.get("default"))


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
    return cleaning.clean([frame], limits.fill_holes, limits.largest_only)[0]


def fits(areas: NDArray[np.int64], limits: Limits) -> NDArray[np.bool_]:
    """Which areas are within the limits; that of an empty mask never is."""
    most = np.inf if limits.max_area is None else limits.max_area
    return (areas >= max(limits.min_area, 1)) & (areas <= most)


def best(cells: Sequence[Cell]) -> list[Cell]:
    """The best cell alone, in a list; an empty list without cells."""
    return [cells[overlap.rank(cells)[0]]] if cells else []
