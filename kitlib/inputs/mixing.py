"""Training images put together from several frames: mosaics and pasted cells."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kitlib.inputs.patch import Patch, PatchCell, paste
from kitlib.records import Frame

# Pixels around a pasted cell that come with it: phase contrast surrounds a cell with a bright halo.
HALO = 3


class FramePool:
    """The frames with cells, from which partners are drawn; each from frames of the same type, annotated or
    pseudo-labelled as it is: a sample has one weight."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.alike: dict[tuple[str | None, bool], list[Frame]] = defaultdict(list)
        for frame in frames:
            if frame.cells:
                self.alike[frame.category, frame.pseudo].append(frame)

    def partner(self, frame: Frame, rng: Generator) -> Frame:
        """A random frame like this one, the frame itself included; itself if there is none."""
        same = self.alike.get((frame.category, frame.pseudo))
        return same[rng.integers(len(same))] if same else frame


def mosaic(top_left: Patch, top_right: Patch, bottom_left: Patch, bottom_right: Patch) -> Patch:
    """Four patches put together; sides that meet are equally long."""
    height, width = top_left.size
    corners = {
        (0, 0): top_left,
        (width, 0): top_right,
        (0, height): bottom_left,
        (width, height): bottom_right,
    }
    cells = [
        dataclasses.replace(cell, x=cell.x + x, y=cell.y + y)
        for (x, y), corner in corners.items()
        for cell in corner.cells
    ]
    rows = [[top_left, top_right], [bottom_left, bottom_right]]
    ignore = None
    if any(corner.ignore is not None for corner in corners.values()):
        ignore = np.block([[_ignored(corner) for corner in row] for row in rows])
    return Patch(np.block([[corner.image for corner in row] for row in rows]), tuple(cells), ignore)


def _ignored(patch: Patch) -> NDArray[np.bool_]:
    return np.zeros(patch.size, bool) if patch.ignore is None else patch.ignore


def draw_corners(size: tuple[int, int], rng: Generator) -> tuple[tuple[int, int], ...]:
    """Sizes of a mosaic's four corners, which meet at a random point in the middle half of the image."""
    height, width = size
    top, left = (round(side * rng.uniform(0.25, 0.75)) for side in size)
    return (top, left), (top, width - left), (height - top, left), (height - top, width - left)


def copy_paste(patch: Patch, donor: Patch, min_visible: float, rng: Generator) -> Patch:
    """Up to half of the donor's cells pasted where they are in the donor, over what lies there.

    The donor's grey levels are shifted by the difference of the two medians, so that backgrounds meet.

    Args:
        donor: a patch of the same size.
    """
    if not donor.cells:
        return patch
    number = int(rng.integers(1, len(donor.cells) // 2 + 2))
    chosen = [donor.cells[i] for i in sorted(rng.permutation(len(donor.cells))[:number])]
    image = patch.image.astype(np.float32)
    shift = float(np.median(patch.image)) - float(np.median(donor.image))
    for cell in chosen:
        _blend(image, donor.image, shift, cell)
    return paste(patch, chosen, np.clip(np.rint(image), 0, 255).astype(np.uint8), min_visible)


def _blend(image: NDArray[np.float32], donor: NDArray[np.uint8], shift: float, cell: PatchCell) -> None:
    """Lay one cell, with a halo that fades out, over ``image`` in place."""
    x0, y0, x1, y1 = cell.box
    left, top = max(x0 - HALO, 0), max(y0 - HALO, 0)
    right, bottom = min(x1 + HALO, image.shape[1]), min(y1 + HALO, image.shape[0])
    around = (y0 - top, bottom - y1, x0 - left, right - x1)
    mask = cv2.copyMakeBorder(
        np.ascontiguousarray(cell.mask).view(np.uint8), *around, cv2.BORDER_CONSTANT, value=0
    )
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    alpha = np.clip(1 - distance / (HALO + 1), 0, 1)
    under = image[top:bottom, left:right]
    under += alpha * (donor[top:bottom, left:right] + shift - under)
