"""What each kind of cell looks like, and how many images and cells the published data have, as numbers.

In ``CULTURES``, counts and areas of the three competition types are close to those of its training set (a
520 x 704 frame has 34, 337 and 80 cells of 240, 225 and 906 pixels on average); contrasts were set beside its
images. The cell lines vary the same three families in size, crowding and outline, and are no portraits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kitlib.data.synthetic.shapes import Form

FULL_FRAME = 520 * 704  # pixels; counts are given for a frame of this size


@dataclass(frozen=True)
class Culture:
    """One kind of cell and how its frames look. Counts are per full frame; grey levels are of 255."""

    forms: tuple[Form, ...]
    count: float  # cells
    area: float  # mean, pixels
    spread: float  # standard deviation of the logarithm of the area
    clustering: float  # share of cells that settle beside another one
    overlap: float  # share of cells that may lie partly on another one
    contrast: float  # grey levels between a cell's dark edge and its halo
    shade: float  # how much darker than the background a thick cell stays inside
    grain: float  # texture inside cells
    neurites: tuple[float, float]  # fibres from each arm: how many, and their mean length in pixels
    fibres: float  # fibres that cross the frame from nowhere
    debris: float  # loose particles
    clumps: float  # heaps of particles
    noise: float  # sensor noise, grey levels


_CORT = Culture(
    forms=(Form(arms=(2, 6), reach=(1.05, 1.4), root=0.5, tip=1.5, aspect=(1.0, 1.8), bend=0.1, blend=0.2),),
    count=34,
    area=240,
    spread=0.5,
    clustering=0.15,
    overlap=0.08,
    contrast=118,
    shade=8,
    grain=0.6,
    neurites=(3.2, 50),
    fibres=170,
    debris=560,
    clumps=5,
    noise=2.2,
)

_SHSY5Y = Culture(
    forms=(
        Form(arms=(2, 2), reach=(1.6, 3.0), root=0.85, tip=1.3, aspect=(1.3, 2.2), opposed=True, share=0.5),
        Form(arms=(3, 4), reach=(1.4, 2.4), root=0.7, tip=1.4, aspect=(1.0, 1.6), opposed=True, share=0.35),
        Form(arms=(0, 1), reach=(1.2, 1.6), root=0.7, tip=1.5, aspect=(1.0, 1.5), share=0.15),
    ),
    count=337,
    area=215,
    spread=0.52,
    clustering=0.4,
    overlap=0.06,
    contrast=96,
    shade=5,
    grain=0.35,
    neurites=(1.2, 24),
    fibres=40,
    debris=50,
    clumps=20,
    noise=2.2,
)

_ASTRO = Culture(
    forms=(
        Form(
            arms=(3, 4),
            reach=(2.2, 4.6),
            root=0.8,
            tip=3.0,
            aspect=(1.0, 2.0),
            taper=2.5,
            size=1.15,
            fork=0.3,
            bend=0.2,
            blend=0.7,
            share=0.3,
        ),
        Form(
            arms=(2, 2),
            reach=(2.2, 4.2),
            root=0.8,
            tip=2.6,
            aspect=(1.4, 2.6),
            size=0.8,
            opposed=True,
            share=0.3,
        ),
        Form(
            arms=(3, 5),
            reach=(1.4, 3.0),
            root=0.9,
            tip=2.4,
            aspect=(1.0, 1.8),
            size=1.1,
            blend=0.8,
            rough=0.8,
            share=0.4,
        ),
    ),
    count=80,
    area=906,
    spread=0.7,
    clustering=0.15,
    overlap=0.06,
    contrast=84,
    shade=2.5,
    grain=0.28,
    neurites=(0.1, 25),
    fibres=4,
    debris=35,
    clumps=5,
    noise=1.4,
)

CULTURES: dict[str, Culture] = {
    "cort": _CORT,
    "shsy5y": _SHSY5Y,
    "astro": _ASTRO,
    "SHSY5Y": replace(_SHSY5Y, count=220, area=300, clustering=0.65, contrast=42, debris=20, clumps=4),
    "A172": replace(_ASTRO, count=110, area=1100, spread=0.5, clustering=0.45, fibres=0, debris=15),
    "Huh7": replace(
        _CORT, count=60, area=1400, contrast=55, shade=4, clustering=0.5, neurites=(0, 0), fibres=0, debris=25
    ),
}


# -------------------------------------------------------------------------------- published numbers


@dataclass(frozen=True)
class Published:
    """How many images of one cell type or cell line were published, and how many cells are annotated in them.

    Attributes:
        culture: how a frame of it is drawn.
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
    "astro": Published(CULTURES["astro"], 131, 10_522, 594, 0.65),
    "cort": Published(CULTURES["cort"], 320, 10_777, 108, 0.45),
    "shsy5y": Published(CULTURES["shsy5y"], 155, 52_286, 790, 0.45),
}
"""The labelled images; ``test`` has the types in the same proportion."""

TEST_IMAGES = 240  # of the hidden test set

UNLABELLED = {
    "astro": {"astro[hippo]": 504, "astros[cereb]": 504},
    "cort": {
        **{"cort[density]": 288, "cort[6-OHDA]": 80, "cort[pre-treat]": 64},
        **{"cort[oka-high]": 24, "cort[oka-low]": 24, "cort[debris]": 16},
    },
    "shsy5y": {"shsy5y[diff]": 468},
}
"""Unlabelled images of each type by plate."""

_ROUND = replace(
    CULTURES["shsy5y"], contrast=50, neurites=(0, 0), fibres=0, debris=20, clumps=4, clustering=0.6
)

LINES = {
    "A172": Published(CULTURES["A172"], 608, 105_586, 600, 0.5),
    "BT474": Published(replace(_ROUND, area=520), 672, 144_233, 700, 0.5),
    "BV2": Published(replace(_ROUND, area=150), 608, 448_155, 2_000, 0.5),
    "Huh7": Published(CULTURES["Huh7"], 600, 46_772, 250, 0.5),
    "MCF7": Published(replace(_ROUND, area=420), 735, 233_948, 900, 0.5),
    "SHSY5Y": Published(CULTURES["SHSY5Y"], 704, 284_150, 1_000, 0.4),
    "SkBr3": Published(replace(_ROUND, area=300), 704, 302_625, 1_100, 0.5),
    "SKOV3": Published(replace(CULTURES["A172"], area=900), 608, 120_883, 650, 0.5),
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
    """``share`` of a published number, and at least 1."""
    return max(1, round(number * share))


def apportion(total: int, weights: Mapping[str, float], least: int = 1) -> dict[str, int]:
    """Whole numbers in proportion to ``weights``, with ``total`` as their sum.

    Args:
        total: what is shared out.
        weights: by name; of two names with an equal claim, the first is served first.
        least: what every name gets, where ``total`` suffices.

    Example:
        >>> apportion(10, {"astro": 1, "cort": 3})
        {'astro': 3, 'cort': 7}
    """
    least = min(least, total // len(weights))
    counts = dict.fromkeys(weights, least)
    whole = sum(weights.values())
    for _ in range(total - least * len(weights)):
        neediest = max(weights, key=lambda name: weights[name] * total / whole - counts[name])
        counts[neediest] += 1
    return counts
