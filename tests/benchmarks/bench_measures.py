"""The table of measurements: shapes and intensities of the cells of a frame."""

from __future__ import annotations

from functools import cache

import numpy as np
from harness import Row, race
from scipy import ndimage
from skimage.measure import regionprops_table

from kitlib.export import measures
from kitlib.masks import rle
from kitlib.records import Cell, Frame

CELLS = 500
PROPERTIES = ("label", "centroid", "area", "perimeter", "eccentricity", "solidity", "intensity_mean")


@cache
def crowd() -> tuple[np.ndarray, np.ndarray, Frame]:
    """A label image of cells that touch, an image of 16 bits, and the cells as a frame."""
    rng = np.random.default_rng(0)
    seeds = np.zeros((520, 704), np.uint16)
    seeds.flat[rng.choice(seeds.size, CELLS, replace=False)] = np.arange(1, CELLS + 1)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)[1]
    labels = seeds[tuple(nearest)]
    cells = tuple(Cell(mask, "cort", 0.9) for mask in rle.from_labels(labels))
    image = rng.integers(0, 60_000, labels.shape).astype(np.uint16)
    return labels, image, Frame("crowd", None, *labels.shape, cells)


def ours() -> list:
    """The rows of cells.csv."""
    _, image, frame = crowd()
    return measures.cell_rows(frame, image)


def theirs() -> dict:
    """scikit-image, of the whole label image at once."""
    labels, image, _ = crowd()
    return regionprops_table(labels, image, PROPERTIES)


def rows():
    """The rows of this module."""
    work = f"{CELLS} cells of a 704 x 520 frame; scikit-image's regionprops_table"
    yield Row("measurements", work, *race(ours, theirs, 3), bar=5)
