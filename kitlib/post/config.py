"""The configuration of post-processing: thresholds by type of cell, scores, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from kitlib.config import Float, Int, configuration
from kitlib.post.calibration import Calibration
from kitlib.post.forest import Forest

Split = Literal["keep_largest", "drop", "keep_all"]
Kind = Literal["box", "mask", "product", "learned"]
KINDS: tuple[Kind, ...] = ("box", "mask", "product", "learned")
TuningMethod = Literal[
    "score threshold", "one threshold for all types", "thresholds by type", "expected gain"
]
#: The methods that tune more than one score threshold for all types.
THRESHOLD_METHODS: tuple[TuningMethod, ...] = (
    "one threshold for all types",
    "thresholds by type",
    "expected gain",
)


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


@configuration
class PostConfig:
    """Post-processing of a frame's predictions: each of ``Limits`` by type, with ``default`` for others."""

    score: dict[str, Float] = Field(default_factory=default("score"))
    min_area: dict[str, Int] = Field(default_factory=default("min_area"))
    max_area: dict[str, Int | None] = Field(default_factory=default("max_area"))
    mask_nms: dict[str, Float] = Field(default_factory=default("mask_nms"))
    max_clipped: dict[str, Float] = Field(default_factory=default("max_clipped"))
    split: dict[str, Split] = Field(default_factory=default("split"))
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


@configuration
class Tuned:
    """What ``post.yaml`` holds: the post-processing, the metric to expect of it and the ends of its 90 %
    bootstrap interval over images."""

    post: PostConfig
    expected: Float
    low: Float
    high: Float
