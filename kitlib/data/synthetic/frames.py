"""One synthetic frame: its picture and its cells."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from kitlib.data.synthetic.cultures import CULTURES
from kitlib.data.synthetic.optics import render
from kitlib.data.synthetic.scene import populate
from kitlib.errors import KitError, unknown
from kitlib.masks import rle
from kitlib.records import Cell

LEAST_SIDE, LARGEST_SIDE = 64, 4096  # pixels


def frame(
    category: str, seed: int, size: tuple[int, int] = (520, 704)
) -> tuple[NDArray[np.uint8], tuple[Cell, ...]]:
    """A phase-contrast picture and the exact mask of every cell in it.

    The number of cells follows the frame's area, from 4 upwards. Every mask lies in the frame, is one
    4-connected component and has no hole; a few masks overlap a little, as annotators' do.

    Args:
        category: a name in ``cultures.CULTURES``: "cort", "shsy5y", "astro", or a cell line.
        seed: draws the frame; the same seed gives the same pixels.
        size: height and width in pixels, each 64 to 4096.

    Returns:
        The (height, width) uint8 picture, and its cells, the larger first.

    Raises:
        KitError: an unknown category, a negative seed or a bad size.
    """
    if category not in CULTURES:
        raise unknown("kind of cell", category, CULTURES)
    check(seed, size)
    culture = CULTURES[category]
    rng = np.random.default_rng([seed, *category.encode()])
    placed = populate(culture, size, rng)
    picture = render(culture, size, placed, rng)
    cells = tuple(Cell(rle.from_crop(p.outline.mask, p.x, p.y, *size), category) for p in placed)
    return picture, cells


def check(seed: int, size: tuple[int, int]) -> None:
    """Refuse a seed or a size that no frame can be drawn with.

    Raises:
        KitError: a negative seed; a side under 64 or over 4096 pixels.
    """
    if seed < 0:
        raise KitError(f"seed {seed} is negative; give 0 or more")
    if len(size) != 2 or not all(LEAST_SIDE <= side <= LARGEST_SIDE for side in size):
        text = "x".join(str(side) for side in size)
        raise KitError(
            f"frames of {text} pixels cannot be drawn; give height and width from {LEAST_SIDE} to "
            f"{LARGEST_SIDE}, for example 256x256"
        )


def frame_id(*parts: object) -> str:
    """An id of 12 hexadecimal digits, as the competition has them; ``int(id, 16)`` is the frame's seed."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]
