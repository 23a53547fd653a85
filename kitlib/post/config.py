"""The configuration of post-processing: thresholds by type of cell, scores, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from kitlib.config import Float, Int, configuration
from kitlib.post.calibration import Calibration
from kitlib.post.forest import Forest

Split = Literal["keep_largest", "drop", "keep_all"]
ScoreKind = Literal["box", "mask", "product", "learned"]
SCORE_KINDS: tuple[ScoreKind, ...] = ("box", "mask", "product", "learned")
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
class CategoryConfig:
    """Post-processing of the frames of one type.

    Attributes:
        score_threshold: the lowest score; medal winners took 0.3 to 0.8.
        min_area: the fewest pixels, before and after better cells took theirs; winners: 60 to 150.
        max_area: the most pixels; None for any number.
        mask_nms: the highest IoU with a better cell; winners: 0.05 to 0.15; 1 is off.
        max_clipped: the largest share of its pixels that a cell may lose to better ones; winners: 0.2 to 0.3.
        split: what becomes of a cell that clipping breaks up, see ``overlap.resolve``.
        fill_holes: fill holes first. A model that was trained on cleaned masks can give back what cleaning
            took: re-filled astro masks were worth 0.002 to one participant.
        largest_only: of a mask in several parts, keep the largest first.
        mask_threshold: the probability from which a pixel belongs to a cell. Prediction cuts masks there;
            here it says for which masks the other fields were tuned.
    """

    score_threshold: float = 0.5
    min_area: int = 20
    max_area: int | None = None
    mask_nms: float = 1.0
    max_clipped: float = 0.3
    split: Split = "keep_largest"
    fill_holes: bool = False
    largest_only: bool = False
    mask_threshold: float = 0.5


NAMES = tuple(f.name for f in dataclasses.fields(CategoryConfig))


def _default(name: str) -> Callable[[], dict[str, Any]]:
    """A factory of tables by type that hold one default for all types: that of ``CategoryConfig``."""
    return lambda: {"default": getattr(CategoryConfig, name)}


def tables(configs: Mapping[str, CategoryConfig]) -> dict[str, Any]:
    """Configurations by type as one table by type for each field; a value that all share stands once.

    Example:
        >>> found = tables({"default": CategoryConfig(), "cort": CategoryConfig(score_threshold=0.3)})
        >>> found["score_threshold"], found["min_area"]
        ({'default': 0.5, 'cort': 0.3}, {'default': 20})
    """
    found = {name: {k: getattr(v, name) for k, v in configs.items()} for name in NAMES}
    shared = {name for name, table in found.items() if len(set(table.values())) == 1}
    return {n: {"default": t["default"]} if n in shared else t for n, t in found.items()}


@configuration
class PostConfig:
    """Post-processing: each field of ``CategoryConfig`` by type, with ``default`` for the other types."""

    RENAMED: ClassVar = {"score": "score_threshold", "gain": "calibrations"}

    score_threshold: dict[str, Float] = Field(default_factory=_default("score_threshold"))
    min_area: dict[str, Int] = Field(default_factory=_default("min_area"))
    max_area: dict[str, Int | None] = Field(default_factory=_default("max_area"))
    mask_nms: dict[str, Float] = Field(default_factory=_default("mask_nms"))
    max_clipped: dict[str, Float] = Field(default_factory=_default("max_clipped"))
    split: dict[str, Split] = Field(default_factory=_default("split"))
    fill_holes: dict[str, bool] = Field(default_factory=_default("fill_holes"))
    largest_only: dict[str, bool] = Field(default_factory=_default("largest_only"))
    mask_threshold: dict[str, Float] = Field(default_factory=_default("mask_threshold"))
    keep_best: bool = True
    """Where no cell is left, the best one stays."""
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    """Calibrations by type, with ``default`` for the others; where there are any, the expected gain chooses
    among instances of any score, and ``score_threshold`` plays no part."""
    score_kind: ScoreKind = "box"
    """Which score ranks the instances and is compared with the score threshold, see ``rescore``."""
    forest: Forest | None = None
    """The trees of the learned score."""

    def for_category(self, category: str | None) -> CategoryConfig:
        """Post-processing of a frame of this type; ``CategoryConfig``'s defaults where no value is given."""
        given = {name: getattr(self, name) for name in NAMES}
        key = {name: category if category in table else "default" for name, table in given.items()}
        return CategoryConfig(**{n: table[key[n]] for n, table in given.items() if key[n] in table})

    def calibration(self, category: str | None) -> Calibration | None:
        """The calibration for a frame of this type; None where the score threshold decides."""
        return self.calibrations.get(category or "default", self.calibrations.get("default"))


@configuration
class Tuned:
    """What ``post.yaml`` holds: the post-processing, the metric to expect of it and the ends of its 90 %
    bootstrap interval over images."""

    post: PostConfig
    expected: Float
    low: Float
    high: Float
