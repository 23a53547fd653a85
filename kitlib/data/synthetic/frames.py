"""One synthetic frame: its picture and cells, its id, and when and where it was taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from kitlib.data.synthetic.cultures import CULTURES
from kitlib.data.synthetic.scene import populate, render
from kitlib.errors import KitError, unknown
from kitlib.masks import rle
from kitlib.records import Cell

_LEAST_SIDE, _LARGEST_SIDE = 64, 4096  # pixels
_SPLITS = ("train", "test", "unlabelled")
# A position in a well is photographed on successive days.
_FRAMES_PER_SAMPLE = 2
# Plates of the competition: name, vessel, first day, time of day.
_PLATES = {
    "astro": ("astros[cereb]", 361, date(2020, 9, 12), "09h00m00s"),
    "cort": ("cort[density]", 376, date(2020, 10, 26), "13h30m00s"),
    "shsy5y": ("shsy5y[diff]", 714, date(2019, 6, 14), "11h30m00s"),
}


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
    if len(size) != 2 or not all(_LEAST_SIDE <= side <= _LARGEST_SIDE for side in size):
        text = "x".join(str(side) for side in size)
        raise KitError(
            f"frames of {text} pixels cannot be drawn; give height and width from {_LEAST_SIDE} to "
            f"{_LARGEST_SIDE}, for example 256x256"
        )


def frame_id(*parts: object) -> str:
    """An id of 12 hexadecimal digits, as the competition has them; ``int(id, 16)`` is the frame's seed."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Exposure:
    """When and where one frame was taken, in the columns of train.csv."""

    plate_time: str
    sample_date: str
    sample_id: str
    elapsed_timedelta: str

    @property
    def file_name(self) -> str:
        """The name of an unlabelled image: the sample with date and time put before the position's number."""
        place, phase = self.sample_id.split("_Ph_")
        return f"{place}_{self.sample_date}_{self.plate_time}_Ph_{phase}.png"


def exposure(category: str, split: str, index: int) -> Exposure:
    """When and where a frame was taken.

    Args:
        category: the cell type.
        split: "train", "test" or "unlabelled"; they share no sample.
        index: number of the frame among those of its type in its split, from 0.
    """
    plate, vessel, first, time = _PLATES[category]
    sample, day = divmod(index, _FRAMES_PER_SAMPLE)
    well, place = divmod(sample, 16)
    row, column = divmod(well, 12)
    vessel += 1000 * _SPLITS.index(split)
    name = f"{plate}_{chr(ord('A') + row)}{column + 1}-{place // 4 + 1}_Vessel-{vessel}_Ph_{place % 4 + 1}"
    clock = time.replace("h", ":").replace("m", ":").rstrip("s")
    return Exposure(time, (first + timedelta(days=day)).isoformat(), name, f"0 days {clock}")
