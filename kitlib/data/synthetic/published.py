"""How many files, cells and faults the published data have; a synthetic folder of full size repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kitlib.data.synthetic.cultures import CULTURES, SHSY5Y, Culture


@dataclass(frozen=True)
class Kind:
    """Images of one cell type or cell line, and the cells annotated in them.

    Attributes:
        culture: how a frame of this kind is drawn.
        images: how many there are.
        cells: in all of these images together.
        most: cells of the fullest image.
        spread: standard deviation of the logarithm of an image's number of cells.
    """

    culture: Culture
    images: int
    cells: int
    most: int
    spread: float


@dataclass(frozen=True)
class Split:
    """One annotation file of LIVECell: it lists some image files twice, under two ids."""

    ids: int
    files: int


TYPES = {
    "astro": Kind(CULTURES["astro"], 131, 10_522, 594, 0.65),
    "cort": Kind(CULTURES["cort"], 320, 10_777, 108, 0.45),
    "shsy5y": Kind(CULTURES["shsy5y"], 155, 52_286, 790, 0.45),
}
"""The labelled images; ``test`` has the types in the same proportion."""

TEST_IMAGES = 240

UNLABELLED = {
    "astro": {"astro[hippo]": 504, "astros[cereb]": 504},
    "cort": {
        **{"cort[density]": 288, "cort[6-OHDA]": 80, "cort[pre-treat]": 64},
        **{"cort[oka-high]": 24, "cort[oka-low]": 24, "cort[debris]": 16},
    },
    "shsy5y": {"shsy5y[diff]": 468},
}
"""Unlabelled images of each type by plate."""

_ROUND = replace(SHSY5Y, contrast=50, neurites=(0, 0), fibres=0, debris=20, clumps=4, clustering=0.6)

LINES = {
    "A172": Kind(CULTURES["A172"], 608, 105_586, 600, 0.5),
    "BT474": Kind(replace(_ROUND, area=520), 672, 144_233, 700, 0.5),
    "BV2": Kind(replace(_ROUND, area=150), 608, 448_155, 2_000, 0.5),
    "Huh7": Kind(CULTURES["Huh7"], 600, 46_772, 250, 0.5),
    "MCF7": Kind(replace(_ROUND, area=420), 735, 233_948, 900, 0.5),
    "SHSY5Y": Kind(CULTURES["SHSY5Y"], 704, 284_150, 1_000, 0.4),
    "SkBr3": Kind(replace(_ROUND, area=300), 704, 302_625, 1_100, 0.5),
    "SKOV3": Kind(replace(CULTURES["A172"], area=900), 608, 120_883, 650, 0.5),
}
"""LIVECell's cell lines over all splits."""

SPLITS = {"train": Split(3_253, 3_188), "val": Split(570, 570), "test": Split(1_564, 1_512)}

VAL_IMAGES_IN_TRAIN = 31
"""Image files that ``val`` and ``train`` both list."""

HARDLY_ANNOTATED = 10
"""Images of ``train`` in which 1 to 9 of many cells are annotated."""

OUTLINED_TWICE = 8
"""Images of ``train`` in which each cell is outlined twice."""

MOST_RELISTED_LINE = "Huh7"
"""Four of five image files that are listed twice show this line."""


def scaled(number: int, share: float) -> int:
    """That share of a published number, and at least 1."""
    return max(1, round(number * share))


def apportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to ``weights`` with the sum ``total``, each at least 1 where possible.

    Of names with equal claims, the first is served first.
    """
    least = min(1, total // len(weights))
    counts = dict.fromkeys(weights, least)
    whole = sum(weights.values())
    for _ in range(total - least * len(weights)):
        neediest = max(weights, key=lambda name: weights[name] * total / whole - counts[name])
        counts[neediest] += 1
    return counts
