"""Frames that are drawn once and become many images: mirrored, and with some of their cells annotated."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import special

from kitlib import files
from kitlib.data.synthetic.cultures import FULL_FRAME, Culture, Published
from kitlib.data.synthetic.scene import LEAST_CELLS, populate, render
from kitlib.masks import rle
from kitlib.masks.rle import RLE

_MIRRORS = ((False, False), (False, True), (True, False), (True, True))
"""Whether a frame is turned upside down, and whether left becomes right."""

_DENSITIES = (0.6, 1.0, 1.6, 2.5)
"""Cells of the drawn frames in units of the published mean; another frame is as full as the fullest image."""

_LARGEST_COVER = 0.4
"""Share of a frame that its cells may cover when they are drawn; crowded cells are drawn smaller."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawn frame, mirrored or not.

    Attributes:
        key: names the cell type or line, the drawing and its mirroring.
        pixels: (height, width) grey values.
        masks: one for each cell.
    """

    key: str
    pixels: NDArray[np.uint8]
    masks: tuple[RLE, ...]

    def mirrored(self, upside_down: bool, left_right: bool) -> Drawing:
        """The drawing with its rows, its columns or both in reverse order."""
        rows, columns = slice(None, None, 1 - 2 * upside_down), slice(None, None, 1 - 2 * left_right)
        height, width = self.pixels.shape
        boxes = rle.boxes(self.masks)
        masks = []
        for crop, (x0, y0, x1, y1) in zip(rle.crops(self.masks, boxes), boxes.tolist(), strict=True):
            x, y = width - x1 if left_right else x0, height - y1 if upside_down else y0
            masks.append(rle.from_crop(crop[rows, columns], x, y, height, width))
        key = f"{self.key}/{int(upside_down)}{int(left_right)}"
        return Drawing(key, np.ascontiguousarray(self.pixels[rows, columns]), tuple(masks))

    @cached_property
    def texts(self) -> list[str]:
        """The competition annotation of each mask."""
        return rle.to_texts(self.masks)


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of the data set: a drawing and the indices of its annotated cells."""

    drawing: Drawing
    cells: NDArray[np.int64]


class Drawings:
    """The frames of one cell type or line, each in four mirrorings, by ascending number of cells."""

    def __init__(
        self, name: str, published: Published, size: tuple[int, int], rng: np.random.Generator
    ) -> None:
        self._published, self._scale = published, size[0] * size[1] / FULL_FRAME
        mean = published.cells / published.images
        counts = [density * mean for density in _DENSITIES if density * mean < published.most]
        counts.append(published.most)
        culture = published.culture
        frames = [_draw(culture, count, size, rng, f"{name}/{index}") for index, count in enumerate(counts)]
        frames.sort(key=lambda drawing: len(drawing.masks))
        self._frames = [[frame.mirrored(*mirror) for mirror in _MIRRORS] for frame in frames]
        self._counts = [len(frame.masks) for frame in frames]

    def show(self, images: int, rng: np.random.Generator) -> list[Shown]:
        """``images`` images with the published mean and distribution of annotated cells."""
        published = self._published
        total = max(LEAST_CELLS * images, round(published.cells * self._scale * images / published.images))
        most = min(self._counts[-1], max(LEAST_CELLS, math.ceil(published.most * self._scale)))
        counts = cells_per_image(images, total, most, published.spread)
        return [self._show(int(count), rng) for count in rng.permutation(counts)]

    def _show(self, count: int, rng: np.random.Generator) -> Shown:
        fullness = int(np.searchsorted(self._counts, count))
        drawing = self._frames[fullness][int(rng.integers(len(_MIRRORS)))]
        return Shown(drawing, np.sort(rng.permutation(len(drawing.masks))[:count]))


def cells_per_image(images: int, total: int, most: int, spread: float) -> NDArray[np.int64]:
    """Cells of each image, ascending: log-normal, from 4 to ``most``, with ``total`` as their sum.

    Args:
        images: how many.
        total: cells in all images; those for which no image has room are left out.
        most: cells of the fullest image.
        spread: standard deviation of the logarithm.
    """
    shape = np.exp(spread * special.ndtri((np.arange(images) + 0.5) / images))
    low, high = 0.0, float(total + most)
    # Bisection on the factor of ``shape`` that gives the total.
    for _ in range(60):
        factor = (low + high) / 2
        counts = np.clip(np.floor(factor * shape), LEAST_CELLS, most).astype(np.int64)
        low, high = (low, factor) if counts.sum() > total else (factor, high)
    counts = np.clip(np.floor(low * shape), LEAST_CELLS, most).astype(np.int64)
    with_room = np.flatnonzero(counts < most)[: max(0, total - counts.sum())]
    counts[with_room] += 1
    return counts


class LinkedImages:
    """Image files of few pictures: the first file of a picture is written, all others are hard links to it.

    Where links are impossible the files are copies.
    """

    def __init__(self, **options: str) -> None:
        self._options = options
        self._first: dict[str, Path] = {}

    def add(self, path: Path, drawing: Drawing) -> None:
        """Give a drawing the name ``path``, whose folder exists.

        Raises:
            KitError: the disk is full or the folder not writable.
        """
        first = self._first.setdefault(drawing.key, path)
        if first == path:
            with files.atomic(path) as temporary:
                Image.fromarray(drawing.pixels).save(temporary, **self._options)
            return
        try:
            path.hardlink_to(first)
        except OSError:
            with files.atomic(path) as temporary:
                shutil.copyfile(first, temporary)


def _draw(
    culture: Culture, count: float, size: tuple[int, int], rng: np.random.Generator, key: str
) -> Drawing:
    area = min(culture.area, _LARGEST_COVER * FULL_FRAME / count)
    culture = replace(culture, count=count, area=area)
    placed = populate(culture, size, rng)
    pixels = render(culture, size, placed, rng)
    return Drawing(key, pixels, tuple(rle.from_crop(p.outline.mask, p.x, p.y, *size) for p in placed))
