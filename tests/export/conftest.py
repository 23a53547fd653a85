"""Frames of cells that touch, have holes and parts, reach the border, or overlap."""

import numpy as np
import pytest
from scipy import ndimage

from kitlib.masks import rle
from kitlib.records import Cell, Frame

SHAPES = {
    "one pixel": ["#"],
    "a line": ["#####"],
    "a hole": ["####", "#..#", "####"],
    "a hole that opens across a corner": ["###", "#.#", "##.", "###"],
    "two holes that meet at a corner": ["####", "#.##", "##.#", "####"],
    "parts that meet at a corner": ["##..", "##..", "..##"],
    "an island in a hole": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "an island that meets the rim at a corner": ["####.", "#..#.", "#.#.#", "#...#", "#####"],
    "stairs": ["#....", "##...", "###..", "####.", "#####"],
}


def drawn(rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


@pytest.fixture(params=SHAPES)
def shape(request):
    return drawn(SHAPES[request.param])


@pytest.fixture(scope="session")
def noise():
    """A mask of many parts and holes."""
    return ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(90, 120)), 1.2) > 0.1


@pytest.fixture(scope="session")
def crowded():
    """A function that makes a frame of so many disjoint cells, of two categories, without any background."""

    def make(count, height=120, width=150, seed=0):
        rng = np.random.default_rng(seed)
        places = rng.choice(height * width, count, replace=False)
        seeds = np.zeros((height, width), int)
        seeds.flat[places] = np.arange(1, count + 1)
        nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)[1]
        masks = rle.from_labels(seeds[tuple(nearest)])
        scores = rng.uniform(0.3, 1, count).round(3).tolist()
        cells = tuple(
            Cell(mask, "cort" if number % 3 else "astro", score)
            for number, (mask, score) in enumerate(zip(masks, scores, strict=True))
        )
        return Frame("well_A1.t03", None, height, width, cells)

    return make


@pytest.fixture(scope="session")
def overlapping():
    """Three squares: the second, the best, covers a quarter of the first and the whole third."""
    masks = [np.zeros((30, 40), bool) for _ in range(3)]
    masks[0][0:10, 0:10] = True
    masks[1][5:15, 5:15] = True
    masks[2][6:9, 6:9] = True
    scores = [0.5, 0.9, 0.7]
    cells = tuple(Cell(rle.from_mask(m), "cort", s) for m, s in zip(masks, scores, strict=True))
    return Frame("overlapping", None, 30, 40, cells)
