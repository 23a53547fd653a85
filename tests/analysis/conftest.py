"""Cells as rectangles, of which overlap is worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kitlib.masks import rle
from kitlib.records import Cell, Frame

SIZE = (60, 100)


@pytest.fixture
def cell() -> Callable[..., Cell]:
    """``cell(x, y, width, height, score)``: a rectangle."""

    def make(
        x: int, y: int, width: int, height: int, score: float | None = None, category: str = "cort"
    ) -> Cell:
        return Cell(rle.from_crop(np.ones((height, width)), x, y, *SIZE), category, score)

    return make


@pytest.fixture
def frame() -> Callable[..., Frame]:
    """``frame(*cells)``: a frame of 100 x 60 pixels without an image."""

    def make(*cells: Cell, name: str = "a", category: str | None = "cort") -> Frame:
        return Frame(name, None, *SIZE, cells, category)

    return make
