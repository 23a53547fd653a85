"""Outlines of single cells, a body with tapering arms as a signed distance field; and fields of noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_COARSE_GRID = 7  # slow noise is a sum of bells on a grid of this many points a side
_BELLS = 1.25  # standard deviation of such a sum, nearly everywhere
_STEPS = 3  # straight pieces of an arm
_SAMPLING = 3  # pixels between the samples from which an area is estimated
_MARGIN = 3  # pixels of background kept around an outline


@dataclass(frozen=True)
class Form:
    """How some cells of a culture are built. Lengths are in body radii unless a unit is named."""

    arms: tuple[int, int]  # fewest and most arms
    reach: tuple[float, float]  # an arm's length, from the centre
    root: float  # an arm's radius where it leaves the body
    tip: float  # an arm's radius at its end, in pixels
    aspect: tuple[float, float]  # the body's length over its width
    taper: float = 1.3  # how an arm thins out: 1 evenly, more means sooner
    size: float = 1.0  # area in units of the culture's mean
    fork: float = 0.0  # chance that an arm splits on its way
    bend: float = 0.2  # turn of an arm a step, radians (standard deviation)
    opposed: bool = False  # the first two arms leave along the body's long axis
    blend: float = 0.25  # how softly arms run into the body
    rough: float = 0.5  # unevenness of the outline, in pixels
    share: float = 1.0  # how often this form is drawn among a culture's forms


@dataclass(frozen=True)
class Outline:
    """A cell in a window of its own, its centre near the window's middle.

    mask: (h, w) bool, one 4-connected component without holes.
    depth: (h, w) float, pixels inwards from the edge; negative outside.
    tips: (n, 4) float, ends of the arms in the window: x, y and a unit direction outwards.
    """

    mask: NDArray[np.bool_]
    depth: NDArray[np.float64]
    tips: NDArray[np.float64]

    @property
    def area(self) -> int:
        return int(self.mask.sum())


def draw(form: Form, area: float, rng: np.random.Generator, unevenness: NDArray) -> Outline:
    """Draw an outline of about ``area`` pixels.

    Args:
        form: how the cell is built.
        area: in pixels.
        rng: draws the shape.
        unevenness: a square tile of smooth noise (unit variance), larger than any cell; a random
            part of it roughens the outline.
    """
    plan = _plan(form, rng)
    radius = 0.8 * math.sqrt(area / math.pi)  # the body has most of the area, the arms the rest
    rough = _distance(_segments(plan, form, radius), form.blend * radius, _SAMPLING)[0]
    radius *= math.sqrt(area / (_SAMPLING**2 * max(int(np.count_nonzero(rough < 0)), 1)))
    segments = _segments(plan, form, radius)
    field, corner = _distance(segments, form.blend * radius)
    field += form.rough * _patch(unevenness, field.shape, rng)
    mask = solid(field < 0)
    depth = np.where(mask, np.maximum(-field, 0.0), -np.abs(field))
    return Outline(mask, depth, _tips(plan, segments, corner))


def solid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected component of a mask, its holes filled; empty when the mask is."""
    labels, number = ndimage.label(mask)
    if number == 0:
        return np.zeros_like(mask)
    if number > 1:
        mask = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    return ndimage.binary_fill_holes(mask)


def _plan(form: Form, rng: np.random.Generator) -> list[NDArray]:
    """Centre lines in units of the body radius: first the body's axis, then one path an arm, (n, 2) each."""
    aspect, axis = rng.uniform(*form.aspect), rng.uniform(0, 2 * math.pi)
    half = np.array([math.cos(axis), math.sin(axis)]) * (aspect - 1) / math.sqrt(aspect)
    count = int(rng.integers(form.arms[0], form.arms[1] + 1))
    angles = axis + 2 * math.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / max(count, 1)
    if form.opposed and count > 1:
        angles[:2] = axis + math.pi * np.arange(2) + rng.normal(0, 0.15, 2)
        angles[2:] = axis + math.pi * rng.uniform(0.25, 0.75, count - 2) * rng.choice([-1, 1], count - 2)
    paths = [np.stack([-half, half])]
    for angle in angles.tolist():
        length = rng.uniform(*form.reach)
        paths.append(_path(half * math.cos(angle - axis), angle, length, form.bend, rng))
        if rng.random() < form.fork:
            side = angle + float(rng.choice([-1, 1])) * rng.uniform(0.5, 1.0)
            paths.append(_path(paths[-1][2], side, length * rng.uniform(0.3, 0.6), form.bend, rng))
    return paths


def _path(start: NDArray, angle: float, length: float, bend: float, rng: np.random.Generator) -> NDArray:
    """A bending line of ``_STEPS`` equal steps, (_STEPS + 1, 2)."""
    heading = angle + np.cumsum(rng.normal(0, bend, _STEPS))
    stride = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / _STEPS
    return np.concatenate([start[None], start + np.cumsum(stride, axis=0)])


def _segments(plan: list[NDArray], form: Form, radius: float) -> NDArray:
    """Tapered capsules (n, 6) in pixels: x, y and radius of one end, then of the other."""
    body, *arms = plan
    width = radius / math.sqrt(1 + np.abs(body).max())
    rows = [[*body[0] * radius, width, *body[1] * radius, width]]
    for path in arms:
        fade = 1 - np.linspace(0, 1, len(path))
        radii = form.tip + np.maximum(form.root * width - form.tip, 0) * fade**form.taper
        nodes = np.column_stack([path * radius, radii])
        rows += np.column_stack([nodes[:-1], nodes[1:]]).tolist()
    return np.array(rows)


def _distance(segments: NDArray, blend: float, step: int = 1) -> tuple[NDArray, NDArray]:
    """Signed distance (h, w) to a soft union of capsules, negative inside; the window's corner (x, y)."""
    ends = np.concatenate([segments[:, :3], segments[:, 3:]])
    reach = ends[:, 2:] + _MARGIN
    low, high = np.floor((ends[:, :2] - reach).min(0)), np.ceil((ends[:, :2] + reach).max(0))
    x = np.arange(low[0], high[0] + 1, step, dtype=np.float32)[None, :]
    y = np.arange(low[1], high[1] + 1, step, dtype=np.float32)[:, None]
    first, *others = segments.tolist()
    distance = _capsule(x, y, *first)
    for segment in others:
        distance = _soft_minimum(distance, _capsule(x, y, *segment), blend)
    return distance, low


def _capsule(
    x: NDArray, y: NDArray, ax: float, ay: float, ar: float, bx: float, by: float, br: float
) -> NDArray:
    """Signed distance (h, w) of pixels in columns x (1, w) and rows y (h, 1) to one tapered capsule."""
    ux, uy = bx - ax, by - ay
    scale = 1 / max(ux * ux + uy * uy, 1e-9)
    along = (x - ax) * (ux * scale) + (y - ay) * (uy * scale)
    np.maximum(along, 0, out=along)
    np.minimum(along, 1, out=along)
    dx, dy = (x - ax) - along * ux, (y - ay) - along * uy
    dx *= dx
    dy *= dy
    dx += dy
    np.sqrt(dx, out=dx)
    along *= br - ar
    along += ar
    dx -= along
    return dx


def _soft_minimum(a: NDArray, b: NDArray, width: float) -> NDArray:
    """Polynomial smooth minimum (Quilez): the minimum, rounded off where a and b are within ``width``."""
    close = np.abs(a - b)
    np.maximum(width - close, 0, out=close)
    close *= close
    close *= 0.25 / max(width, 1e-6)
    return np.minimum(a, b) - close


def _tips(plan: list[NDArray], segments: NDArray, corner: NDArray) -> NDArray:
    """Ends of the arms in the window with the direction in which they point; none for a cell without arms."""
    rows, last = [], 0
    for path in plan[1:]:
        last += len(path) - 1
        (ax, ay), (bx, by) = segments[last, :2], segments[last, 3:5]
        length = math.hypot(bx - ax, by - ay)
        rows.append([bx - corner[0], by - corner[1], (bx - ax) / length, (by - ay) / length])
    return np.array(rows).reshape(-1, 4)


# -------------------------------------------------------------------------------- noise


def smooth_noise(size: tuple[int, int], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise with details of about ``sigma`` pixels, zero mean, unit variance; its edges meet."""
    field = ndimage.gaussian_filter(rng.standard_normal(size), sigma, mode="wrap")
    field -= field.mean()
    return field / max(float(field.std()), 1e-9)


def slow_noise(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise that changes over about a fifth of the frame, of about unit variance."""
    grid = np.arange(_COARSE_GRID)
    places = (np.linspace(0.5, _COARSE_GRID - 1.5, side)[:, None] for side in size)
    rows, columns = (np.exp(-((place - grid) ** 2)) for place in places)
    return rows @ rng.standard_normal((_COARSE_GRID, _COARSE_GRID)) @ columns.T / _BELLS


def sensor_noise(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise as the instrument leaves it: a little blurred, without slow changes, unit variance."""
    white = rng.standard_normal(size)
    field = ndimage.gaussian_filter(white, 0.45) - ndimage.gaussian_filter(white, 1.6)
    return field / field.std()


def _patch(tile: NDArray, shape: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """A random part, of ``shape``, of a tile that repeats endlessly."""
    rows = (rng.integers(tile.shape[0]) + np.arange(shape[0])) % tile.shape[0]
    columns = (rng.integers(tile.shape[1]) + np.arange(shape[1])) % tile.shape[1]
    return tile[np.ix_(rows, columns)]


def lognormal(rng: np.random.Generator, sigma: float) -> float:
    """A log-normal factor with mean 1; ``sigma`` is the standard deviation of its logarithm."""
    return math.exp(sigma * rng.standard_normal() - sigma * sigma / 2)
