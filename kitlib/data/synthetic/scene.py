"""A frame: where its cells lie, and how a phase-contrast microscope shows them.

For the microscope, a frame is a map of optical thickness. The instrument's phase ring passes fine detail and
loses slow changes, so thick edges come out dark with a bright halo around them: a difference of Gaussians of
the thickness, on grey 128.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kitlib.data.synthetic import shapes
from kitlib.data.synthetic.cultures import FULL_FRAME, Culture
from kitlib.data.synthetic.shapes import Outline, lognormal, sensor_noise, slow_noise, smooth_noise

LEAST_CELLS = 4  # in a frame, whatever its size
_LEAST_AREA = 40  # pixels of a cell that must lie in the frame
_TRIES = 40  # places that are tried for an outline
_BACKGROUND = 128.0
_RIM = 2.6  # pixels inside an outline, which runs through the halo, where a cell reaches its full thickness
_INSIDE = 3.0  # pixels that a fibre reaches back into the arm from which it grows
_HALO = 1.5  # how much more a halo stands out than the dark edge that belongs to it


@dataclass(frozen=True)
class Placed:
    """An outline in its frame: the part of it that lies inside, at column ``x`` and row ``y``."""

    outline: Outline
    x: int
    y: int


def populate(culture: Culture, size: tuple[int, int], rng: np.random.Generator) -> list[Placed]:
    """Draw and place the cells of a frame, the larger first, each with little or no overlap.

    Args:
        culture: the kind of cell.
        size: height and width of the frame, in pixels.
        rng: draws forms, sizes and places.
    """
    pixels = size[0] * size[1]
    number = max(LEAST_CELLS, round(culture.count * pixels / FULL_FRAME * lognormal(rng, 0.25)))
    # Four cells must find room in the smallest frame.
    largest = 0.08 * pixels
    areas = culture.area * np.array([lognormal(rng, culture.spread) for _ in range(number)])
    areas = np.sort(np.clip(areas, 2 * _LEAST_AREA, max(largest, 2 * _LEAST_AREA)))[::-1]
    unevenness = smooth_noise((192, 192), 3.0, rng)
    taken = np.zeros(size, bool)
    cells: list[Placed] = []
    for area in areas.tolist():
        cell = _settle(culture, area, cells, taken, rng, unevenness)
        if cell is not None:
            cells.append(cell)
            _window(taken, cell)[cell.outline.mask] = True
    return cells


def _settle(
    culture: Culture,
    area: float,
    cells: list[Placed],
    taken: NDArray[np.bool_],
    rng: np.random.Generator,
    unevenness: NDArray,
) -> Placed | None:
    """Place a cell of about ``area`` pixels, or a smaller one; None where not even that finds a place."""
    shares = np.array([form.share for form in culture.forms])
    form = culture.forms[int(rng.choice(len(shares), p=shares / shares.sum()))]
    least, most = (1, 0.15) if rng.random() < culture.overlap else (0, 0.0)
    while area >= _LEAST_AREA:
        outline = shapes.draw(form, form.size * area, rng, unevenness)
        for _ in range(_TRIES):
            x, y = _middle(culture, cells, taken.shape, rng)
            placed = _clip(outline, round(x), round(y), taken.shape)
            if not least <= _window(taken, placed)[placed.outline.mask].sum() <= most * placed.outline.area:
                continue
            whole = _largest_part(placed, outline.area)
            if whole is not None:
                return whole
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


def _largest_part(cell: Placed, area: int) -> Placed | None:
    """The largest part of a cell that the frame's edge cut; None when too little is left of its ``area``."""
    if cell.outline.area == area:
        return cell
    mask = shapes.solid(cell.outline.mask)
    if mask.sum() < max(_LEAST_AREA, 0.35 * area):
        return None
    depth = np.where(mask, cell.outline.depth, -np.abs(cell.outline.depth))
    return replace(cell, outline=replace(cell.outline, mask=mask, depth=depth))


def _window(array: NDArray, cell: Placed) -> NDArray:
    """The part of a frame-sized array that lies under a cell's window."""
    height, width = cell.outline.mask.shape
    return array[cell.y : cell.y + height, cell.x : cell.x + width]


# -------------------------------------------------------------------------------- the microscope


def render(
    culture: Culture, size: tuple[int, int], cells: list[Placed], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The grey values that a camera would record of cells among fibres and debris.

    Args:
        culture: the kind of cell.
        size: height and width of the frame, in pixels.
        cells: where the cells lie, from ``populate``.
        rng: draws fibres, debris, focus, light and noise.

    Returns:
        (height, width) uint8.
    """
    bodies = _bodies(culture, size, cells, rng)
    lines = _fibres(culture, size, cells, rng)
    dirt = _debris(culture, size, rng)
    thick = bodies + lines + dirt
    sharp = ndimage.gaussian_filter(thick, 0.5)
    # Parts of a frame lie a little out of focus.
    focus = np.clip(0.25 + 0.3 * slow_noise(size, rng), 0, 1)
    sharp += focus * (ndimage.gaussian_filter(thick, 0.9) - sharp)
    image = culture.contrast * lognormal(rng, 0.08) * (ndimage.gaussian_filter(thick, 1.9) - sharp)
    image *= np.where(image > 0, _HALO, 1.0)
    image -= culture.shade * ndimage.gaussian_filter(bodies, 1.5)
    # Uneven light.
    image += 1.0 * slow_noise(size, rng)
    image += culture.noise * sensor_noise(size, rng)
    # A camera saturates gradually.
    image = 126 * np.tanh(image / 126)
    # The instrument sets the mean grey of each frame.
    image += _BACKGROUND - image.mean()
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _bodies(
    culture: Culture, size: tuple[int, int], cells: list[Placed], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Thickness of the cells: a steep edge inside the outline, a dome, and a granular interior."""
    thick = np.zeros(size)
    texture = smooth_noise(size, 0.75, rng)
    texture *= 0.4 + 0.6 * np.abs(texture)  # few strong grains rather than many weak ones
    for cell in cells:
        depth = cell.outline.depth
        deepest = max(float(depth.max()), 1.0)
        edge = np.clip(depth / _RIM, 0, 1)
        edge = edge * edge * (3 - 2 * edge)
        dome = np.clip(depth / deepest, 0, 1)
        flat = min(1.1, max(0.35, (7 / deepest) ** 0.9)) * lognormal(rng, 0.12)
        grains = culture.grain * _window(texture, cell) * np.clip(depth / 7, 0, 1) * (0.3 + dome)
        _window(thick, cell)[...] += edge * flat * (0.8 + 0.35 * dome + grains)
    return thick


def _fibres(
    culture: Culture, size: tuple[int, int], cells: list[Placed], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Thickness of neurites, which nobody annotates: from the arms of cells, and across the frame."""
    number, mean_length = culture.neurites
    starts = []
    for cell in cells:
        tips = np.repeat(cell.outline.tips, rng.poisson(number, len(cell.outline.tips)), axis=0)
        tips[:, :2] += [cell.x, cell.y] - _INSIDE * tips[:, 2:]
        starts += [(x, y, math.atan2(dy, dx), mean_length, 0.19) for x, y, dx, dy in tips.tolist()]
    share = size[0] * size[1] / FULL_FRAME
    for _ in range(rng.poisson(culture.fibres * share)):
        x, y = rng.uniform(0, size[1]), rng.uniform(0, size[0])
        starts.append((x, y, rng.uniform(0, 2 * math.pi), 90.0, 0.14))
    points = [_fibre(*start, rng) for start in starts]
    return _scatter(np.concatenate(points) if points else np.zeros((0, 3)), size)


def _fibre(
    x: float, y: float, heading: float, mean_length: float, weight: float, rng: np.random.Generator
) -> NDArray:
    """Points every half pixel along a curving line, (n, 3): x, y and thickness."""
    steps = max(int(2 * mean_length * lognormal(rng, 0.6)), 8)
    curve = np.cumsum(rng.normal(0, 0.0004, steps)) + rng.normal(0, 0.003)
    headings = heading + rng.normal(0, 0.45) + np.cumsum(curve + rng.normal(0, 0.05, steps))
    beads = 0.8 + 1.2 * np.sin(np.cumsum(rng.uniform(0.02, 0.4, steps))) ** 8
    fade = np.linspace(1, 0.3, steps) * weight * lognormal(rng, 0.5)
    path = x + np.cumsum(np.cos(headings)) / 2, y + np.cumsum(np.sin(headings)) / 2
    return np.column_stack([*path, fade * beads])


def _scatter(points: NDArray, size: tuple[int, int]) -> NDArray[np.float64]:
    """Weighted points spread over the four pixels around each, as a map."""
    x, y, weight = points.T
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros(size[0] * size[1])
    for dy in (0, 1):
        for dx in (0, 1):
            part = weight * np.abs(1 - dx - (x - column)) * np.abs(1 - dy - (y - row))
            inside = (column + dx >= 0) & (column + dx < size[1]) & (row + dy >= 0) & (row + dy < size[0])
            place = (row + dy)[inside] * size[1] + (column + dx)[inside]
            total += np.bincount(place, part[inside], minlength=total.size)
    return total.reshape(size)


def _debris(culture: Culture, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Thickness of loose particles and of heaps of them."""
    share = size[0] * size[1] / FULL_FRAME
    places = [
        (rng.uniform(0, size[1]), rng.uniform(0, size[0]))
        for _ in range(rng.poisson(culture.debris * share * lognormal(rng, 0.3)))
    ]
    for _ in range(rng.poisson(culture.clumps * share)):
        middle = np.array([rng.uniform(0, size[1]), rng.uniform(0, size[0])])
        places += (middle + rng.normal(0, 4.0, (int(rng.integers(3, 11)), 2))).tolist()
    thick = np.zeros(size)
    for x, y in places:
        if 0 <= x < size[1] and 0 <= y < size[0]:
            _particle(thick, x, y, rng)
    return thick


def _particle(thick: NDArray, x: float, y: float, rng: np.random.Generator) -> None:
    """Add a small dense ball, which acts as a lens when it is large: a bright spot in a dark ring."""
    radius = 0.4 + 2.4 * rng.random() ** 1.7
    strength = rng.uniform(0.5, 3.6)
    left, top = max(int(x) - 7, 0), max(int(y) - 7, 0)
    part = thick[top : int(y) + 8, left : int(x) + 8]
    dy, dx = np.ogrid[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]]
    distance = np.sqrt(dx * dx + dy * dy)
    shift = rng.normal(0, 0.5, 2)
    off_centre = np.sqrt((dx - shift[0]) ** 2 + (dy - shift[1]) ** 2)
    ball = np.clip(radius + 0.5 - distance, 0, 1) - 0.22 * np.exp(-((off_centre - radius - 1.0) ** 2) / 0.6)
    if radius > 1.5:
        ball -= 1.3 * np.exp(-((dx + shift[0]) ** 2 + (dy + shift[1]) ** 2) / 1.2)
    part += strength * ball
