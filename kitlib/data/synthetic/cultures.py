"""What each kind of cell looks like, as numbers: forms, counts, sizes and surroundings.

Counts and areas of the three competition types are close to those of its training set (a 520 x 704 frame
has 34, 337 and 80 cells of 240, 225 and 906 pixels on average); contrasts were set beside its images. The
cell lines vary the same three families in size, crowding and outline; they do not claim to be portraits.
"""

from __future__ import annotations

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


CORT = Culture(
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

SHSY5Y = Culture(
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

ASTRO = Culture(
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
    "cort": CORT,
    "shsy5y": SHSY5Y,
    "astro": ASTRO,
    "SHSY5Y": replace(SHSY5Y, count=220, area=300, clustering=0.65, contrast=42, debris=20, clumps=4),
    "A172": replace(ASTRO, count=110, area=1100, spread=0.5, clustering=0.45, fibres=0, debris=15),
    "Huh7": replace(
        CORT, count=60, area=1400, contrast=55, shade=4, clustering=0.5, neurites=(0, 0), fibres=0, debris=25
    ),
}
