"""Predictions as a good model might make them: true cells a little off, and as many false ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from kitlib.masks import rle
from kitlib.records import Cell, Frame

SHIFT = 1.2
"""Pixels by which a predicted cell lies beside the true one (standard deviation, in x and in y)."""

FALSE_SHARE = 1.0
"""False instances for each true cell."""


def predictions(truth: Sequence[Frame], seed: int) -> tuple[list[Frame], list[Frame]]:
    """Instances of each frame at mask thresholds 0.5 and 0.4; those at 0.4 are one pixel larger all around.

    Args:
        truth: frames with their true cells; the result has their ids.
        seed: draws everything.
    """
    rng = np.random.default_rng(seed)
    usual, larger = [], []
    for frame in truth:
        pairs = list(_instances(frame, rng))
        usual.append(replace(frame, cells=tuple(cell for cell, _ in pairs)))
        larger.append(replace(frame, cells=tuple(cell for _, cell in pairs)))
    return usual, larger


def _instances(frame: Frame, rng: np.random.Generator) -> Iterator[tuple[Cell, Cell]]:
    """Each true cell a little off, with a high score, and a false one of its shape with a low score."""
    masks = [cell.mask for cell in frame.cells]
    boxes = rle.boxes(masks)
    shapes = zip(frame.cells, rle.crops(masks, boxes), boxes.tolist(), strict=True)
    for cell, shape, (x0, y0, x1, y1) in shapes:
        shift_x, shift_y = np.rint(rng.normal(0, SHIFT, 2)).astype(int).tolist()
        yield _at_two_thresholds(frame, cell, shape, x0 + shift_x, y0 + shift_y, rng.beta(5, 2), rng)
        if rng.random() < FALSE_SHARE:
            x = int(rng.integers(0, frame.width - (x1 - x0) + 1))
            y = int(rng.integers(0, frame.height - (y1 - y0) + 1))
            yield _at_two_thresholds(frame, cell, shape, x, y, rng.beta(2, 5), rng)


def _at_two_thresholds(
    frame: Frame, cell: Cell, shape: np.ndarray, x: int, y: int, score: float, rng: np.random.Generator
) -> tuple[Cell, Cell]:
    size = frame.height, frame.width
    wide = ndimage.binary_dilation(np.pad(shape, 1))
    usual = replace(cell, score=round(score, 4), mask_score=round(rng.beta(8, 2), 4), agreement=1.0)
    return (
        replace(usual, mask=rle.from_crop(shape, x, y, *size)),
        replace(usual, mask=rle.from_crop(wide, x - 1, y - 1, *size)),
    )
