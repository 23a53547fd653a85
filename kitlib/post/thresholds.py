"""From all that the model saw to what is believed: score and area limits for each type of cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kitlib import rle
from kitlib.post import overlap
from kitlib.records import Cell, Frame


@dataclass(frozen=True)
class PostConfig:
    """Post-processing of the predictions of a frame. ``score`` and ``min_area`` hold a limit for each
    category, and ``default`` for the others; starting points of medal winners: score 0.3 to 0.8, area 60 to
    150 pixels."""

    score: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    min_area: dict[str, int] = field(default_factory=lambda: {"default": 20})
    mask_nms: float = 1.0
    max_clipped: float = 0.3
    split: overlap.Split = "keep_largest"
    keep_best: bool = True

    def score_of(self, category: str | None) -> float:
        """The lowest score that a cell of a frame of this category needs."""
        return self.score.get(category or "default", self.score.get("default", 0.5))

    def min_area_of(self, category: str | None) -> int:
        """The least area in pixels of a cell of a frame of this category."""
        return self.min_area.get(category or "default", self.min_area.get("default", 0))


def vote(cells: Sequence[Cell]) -> str | None:
    """The category of a frame, from the cells predicted in it; None without cells.

    A competition image holds one type of cell, but which one is not known of a test image. Each cell votes
    with the square of its score: a few certain cells outweigh hundreds of faint ones, of which every frame
    has some of each type. Ties go to the first name in the alphabet.
    """
    votes: dict[str, float] = {}
    for cell in cells:
        votes[cell.category] = (
            votes.get(cell.category, 0.0) + (1.0 if cell.score is None else cell.score) ** 2
        )
    return min(votes, key=lambda name: (-votes[name], name)) if votes else None


def apply(frame: Frame, config: PostConfig) -> Frame:
    """The frame with believable, disjoint cells only, best first, and with the voted category.

    Limits are those of the frame's voted category, for all of its cells. The area is checked before the
    overlap is resolved, so that specks clip nothing, and after it. Where no cell is left and ``keep_best`` is
    set, the best one that is large enough (or else the best one) stays: on an image with cells a wrong guess
    costs nothing.
    """
    category = vote(frame.cells)
    floor, least = config.score_of(category), config.min_area_of(category)
    areas = rle.areas([c.mask for c in frame.cells])
    large = [c for c, area in zip(frame.cells, areas, strict=True) if area >= max(least, 1)]
    passing = [c for c in large if c.score is None or c.score >= floor]
    cells = overlap.resolve(
        passing, frame.height, frame.width, config.max_clipped, config.split, config.mask_nms
    )
    left = rle.areas([c.mask for c in cells])
    cells = [c for c, area in zip(cells, left, strict=True) if area >= least]
    if not cells and config.keep_best:
        cells = best(large or [c for c, area in zip(frame.cells, areas, strict=True) if area])
    return replace(frame, cells=tuple(cells), category=category)


def best(cells: Sequence[Cell]) -> list[Cell]:
    """The best cell alone, in a list; an empty list without cells."""
    return [cells[overlap.rank(cells)[0]]] if cells else []
