"""What a cell needs to be believed, by type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kitlib.post.overlap import Split


@dataclass(frozen=True)
class Limits:
    """The limits of one type of cell.

    Attributes:
        score: the lowest score; medal winners took 0.3 to 0.8.
        min_area: the fewest pixels, before and after better cells took theirs; winners: 60 to 150.
        max_area: the most pixels; None for any number.
        mask_nms: the highest IoU with a better cell; winners: 0.05 to 0.15; 1 is off.
        max_clipped: the largest share of its pixels that a cell may lose to better ones; winners: 0.2 to 0.3.
        split: what becomes of a cell that clipping breaks up, see ``overlap.resolve``.
        fill_holes: fill holes first. A model that was trained on cleaned masks can give back what cleaning
            took: re-filled astro masks were worth 0.002 to one participant.
        largest_only: of a mask in several parts, keep the largest first.
        mask_threshold: the probability from which a pixel belongs to a cell. It acts where masks are made,
            in prediction; here it only says at which one the other limits were tuned.
    """

    score: float = 0.5
    min_area: int = 20
    max_area: int | None = None
    mask_nms: float = 1.0
    max_clipped: float = 0.3
    split: Split = "keep_largest"
    fill_holes: bool = False
    largest_only: bool = False
    mask_threshold: float = 0.5


NAMES = tuple(f.name for f in dataclasses.fields(Limits))


def default(name: str) -> Callable[[], dict[str, Any]]:
    """A factory of tables that hold one limit for all types: that of ``Limits``."""
    return lambda: {"default": getattr(Limits, name)}


def tables(limits: Mapping[str, Limits]) -> dict[str, dict[str, Any]]:
    """Limits by type as one table by type for each limit; types that all agree are left out.

    Example:
        >>> tables({"default": Limits(), "cort": Limits(score=0.3)})["score"]
        {'default': 0.5, 'cort': 0.3}
    """
    found = {name: {k: getattr(v, name) for k, v in limits.items()} for name in NAMES}
    alike = {name for name, table in found.items() if len(set(table.values())) == 1}
    return {n: {"default": t["default"]} if n in alike else t for n, t in found.items()}
