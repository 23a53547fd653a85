"""Cells of one frame pasted into the training image of another."""

from __future__ import annotations

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
