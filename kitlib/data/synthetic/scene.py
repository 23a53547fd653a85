"""Where the cells of a frame lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kitlib.data.synthetic import shapes
from kitlib.data.synthetic.cultures import FULL_FRAME, Culture
from kitlib.data.synthetic.noise import lognormal, smooth_noise
from kitlib.data.synthetic.shapes import Outline

LEAST_CELLS = 4
LEAST_AREA = 40  # pixels that must lie in the frame
TRIES = 40


@dataclass(frozen=True)
class Placed:
    """An outline in its frame: the part of it that lies inside, at column ``x`` and row ``y``."""

    outline: Outline
    x: int
    y: int


def populate(culture: Culture, size: tuple[int, int], rng: np.random.Generator) -> list[Placed]:
    """Cells for a frame of ``size`` (height, width): the larger first, each with little or no overlap."""
    pixels = size[0] * size[1]
    crowd = culture.count * pixels / FULL_FRAME * lognormal(rng, 0.25)
    number = max(LEAST_CELLS, round(crowd))
    largest = 0.08 * pixels  # at least four must find room in a tiny frame
    areas = culture.area * np.array([lognormal(rng, culture.spread) for _ in range(number)])
    areas = np.sort(np.clip(areas, 2 * LEAST_AREA, max(largest, 2 * LEAST_AREA)))[::-1]
    unevenness = smooth_noise((192, 192), 3.0, rng)
    taken = np.zeros(size, bool)
    cells: list[Placed] = []
    for area in areas.tolist():
        cell = _settle(culture, area, cells, taken, rng, unevenness)
        if cell is not None:
            cells.append(cell)
            window(taken, cell)[cell.outline.mask] = True
    return cells


def _settle(
    culture: Culture,
    area: float,
    cells: list[Placed],
    taken: NDArray[np.bool_],
    rng: np.random.Generator,
    unevenness: NDArray,
) -> Placed | None:
    """A place for a new cell of about ``area`` pixels; where there is none, a smaller cell; at last none."""
    shares = np.array([form.share for form in culture.forms])
    form = culture.forms[int(rng.choice(len(shares), p=shares / shares.sum()))]
    least, most = (1, 0.15) if rng.random() < culture.overlap else (0, 0.0)
    while area >= LEAST_AREA:
        outline = shapes.draw(form, form.size * area, rng, unevenness)
        for _ in range(TRIES):
            x, y = _middle(culture, cells, taken.shape, rng)
            placed = _clip(outline, round(x), round(y), taken.shape)
            if not least <= window(taken, placed)[placed.outline.mask].sum() <= most * placed.outline.area:
                continue
            placed = _mend(placed, outline.area)
            if placed is not None:
                return placed
        least, area = 0, 0.6 * area
    return None


def _middle(
    culture: Culture, cells: list[Placed], size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float]:
    """A point for a cell's middle: beside another cell, or anywhere in the frame."""
    if cells and rng.random() < culture.clustering:
        other = cells[int(rng.integers(len(cells)))]
        height, width = other.outline.mask.shape
        distance = rng.uniform(0.8, 1.6) * math.sqrt(culture.area)
        angle = rng.uniform(0, 2 * math.pi)
        x = other.x + width / 2 + distance * math.cos(angle)
        y = other.y + height / 2 + distance * math.sin(angle)
        if 0 <= x < size[1] and 0 <= y < size[0]:
            return x, y
    return rng.uniform(0, size[1]), rng.uniform(0, size[0])


def _clip(outline: Outline, x: int, y: int, size: tuple[int, int]) -> Placed:
    """The outline with its window's middle at (x, y), a place in the frame; what sticks out is cut off."""
    height, width = outline.mask.shape
    x, y = x - width // 2, y - height // 2
    rows = slice(max(-y, 0), size[0] - y)
    columns = slice(max(-x, 0), size[1] - x)
    tips = outline.tips - [columns.start, rows.start, 0, 0]
    cut = Outline(outline.mask[rows, columns], outline.depth[rows, columns], tips)
    return Placed(cut, x + columns.start, y + rows.start)


def _mend(cell: Placed, whole: int) -> Placed | None:
    """The largest part of a cell that the frame's edge cut; None when too little is left of ``whole``."""
    if cell.outline.area == whole:
        return cell
    mask = shapes.solid(cell.outline.mask)
    if mask.sum() < max(LEAST_AREA, 0.35 * whole):
        return None
    depth = np.where(mask, cell.outline.depth, -np.abs(cell.outline.depth))
    return replace(cell, outline=replace(cell.outline, mask=mask, depth=depth))


def window(array: NDArray, cell: Placed) -> NDArray:
    """The part of a frame-sized array that lies under a cell's window."""
    height, width = cell.outline.mask.shape
    return array[cell.y : cell.y + height, cell.x : cell.x + width]
