"""A piece of a frame on its way into the model: an image and the cells in it, each mask within its own
box."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib import rle
from kitlib.records import Cell, Frame

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open


@dataclass(frozen=True, slots=True)
class PatchCell:
    """One cell of a patch.

    Attributes:
        x: column of the mask's left edge in the patch.
        y: row of its top edge.
        mask: (h, w) bool.
        label: class index.
        whole: pixels that the cell would have here if nothing of it were cut off or covered.
    """

    x: int
    y: int
    mask: NDArray[np.bool_]
    label: int
    whole: float

    @property
    def box(self) -> Box:
        return self.x, self.y, self.x + self.mask.shape[1], self.y + self.mask.shape[0]

    def visible(self, min_visible: float) -> bool:
        """Whether more than this share of the cell, and at least one pixel, is left."""
        return np.count_nonzero(self.mask) > min_visible * self.whole


@dataclass(frozen=True, slots=True)
class Patch:
    """An image, (H, W) uint8, and the cells in it, in the frame's order."""

    image: NDArray[np.uint8]
    cells: tuple[PatchCell, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def overlap(a: Box, b: Box) -> Box | None:
    """The box that two boxes share, if any."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def take(
    frame: Frame,
    image: NDArray[np.uint8],
    label_of: Callable[[Cell], int],
    source: Box,
    near: Box | None = None,
) -> Patch:
    """The part ``source`` of a frame; only cells that reach into ``near`` (frame coordinates) are decoded,
    if given."""
    masks = [cell.mask for cell in frame.cells]
    boxes, areas = rle.boxes(masks), rle.areas(masks)
    x0, y0, x1, y1 = source if near is None else (overlap(source, near) or (0, 0, 0, 0))
    reach = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    cells = []
    for index in np.flatnonzero(reach):
        box = overlap(tuple(boxes[index].tolist()), source)
        if box is not None:
            cell, mask = frame.cells[index], rle.crop(masks[index], box)
            cells.append(
                PatchCell(box[0] - source[0], box[1] - source[1], mask, label_of(cell), float(areas[index]))
            )
    return Patch(image[source[1] : source[3], source[0] : source[2]], tuple(cells))


# ---------------------------------------------------------------------------------------------- size


def resize(patch: Patch, size: tuple[int, int]) -> Patch:
    """The patch at another (height, width); image and masks on the grid of ``cv2.resize`` with
    ``INTER_LINEAR``.

    A mask's pixel is inside where its bilinear value is at least a half, as if the full frame had been
    resized.
    """
    if patch.size == tuple(size):
        return patch
    image = cv2.resize(patch.image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    cells = (resize_cell(cell, patch.size, size) for cell in patch.cells)
    return Patch(image, tuple(cell for cell in cells if cell is not None))


def resize_cell(cell: PatchCell, old: tuple[int, int], new: tuple[int, int]) -> PatchCell | None:
    """A cell of a patch of size ``old`` at the size ``new``; None when no pixel is left of it."""
    x0, x1 = _resized_span(cell.box[0], cell.box[2], old[1], new[1])
    y0, y1 = _resized_span(cell.box[1], cell.box[3], old[0], new[0])
    if x0 >= x1 or y0 >= y1:
        return None
    # One pixel around the mask: its own edge where the image ends (as cv2.resize repeats it), else
    # background.
    ends = (cell.y == 0, cell.box[3] == old[0], cell.x == 0, cell.box[2] == old[1])
    levels = cell.mask.view(np.uint8) * 255
    levels = cv2.copyMakeBorder(levels, *(int(e) for e in ends), cv2.BORDER_REPLICATE)
    scale_x, scale_y = old[1] / new[1], old[0] / new[0]
    to_old = np.array(
        [
            [scale_x, 0, (x0 + 0.5) * scale_x - 0.5 - cell.x + ends[2]],
            [0, scale_y, (y0 + 0.5) * scale_y - 0.5 - cell.y + ends[0]],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # 127, not 128: a value that is a half but for rounding counts as inside.
    mask = cv2.warpAffine(levels, to_old, (x1 - x0, y1 - y0), flags=flags) >= 127
    count = np.count_nonzero(mask)
    if not count:
        return None
    return PatchCell(x0, y0, mask, cell.label, count * cell.whole / np.count_nonzero(cell.mask))


def _resized_span(first: int, last: int, old: int, new: int) -> tuple[int, int]:
    """The new pixels along one axis to which the old pixels ``first`` to ``last`` contribute."""
    scale = new / old
    return max(int((first - 0.5) * scale - 0.5), 0), min(int(np.ceil((last + 0.5) * scale + 0.5)), new)


def crop(patch: Patch, box: Box, min_visible: float) -> Patch:
    """The part of a patch inside a box; cells stay when more than ``min_visible`` of their whole is inside.

    Where the box is larger than the patch, the rest is filled with the image's median grey and holds no
    cells.
    """
    if box == (0, 0, patch.size[1], patch.size[0]):
        return Patch(patch.image, tuple(c for c in patch.cells if c.visible(min_visible)))
    x0, y0, x1, y1 = box
    image = np.ascontiguousarray(patch.image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)])
    if image.shape != (y1 - y0, x1 - x0):
        top, left = max(-y0, 0), max(-x0, 0)
        around = (top, y1 - y0 - top - image.shape[0], left, x1 - x0 - left - image.shape[1])
        fill = float(np.median(patch.image)) // 1
        image = cv2.copyMakeBorder(image, *around, cv2.BORDER_CONSTANT, value=fill)
    cells = (_cropped(cell, box) for cell in patch.cells)
    return Patch(image, tuple(c for c in cells if c is not None and c.visible(min_visible)))


def _cropped(cell: PatchCell, box: Box) -> PatchCell | None:
    inside = overlap(cell.box, box)
    if inside is None:
        return None
    x0, y0, x1, y1 = inside
    mask = cell.mask[y0 - cell.y : y1 - cell.y, x0 - cell.x : x1 - cell.x]
    return dataclasses.replace(cell, x=x0 - box[0], y=y0 - box[1], mask=mask)


# -------------------------------------------------------------------------------- flips and turns


def flip_x(patch: Patch) -> Patch:
    """Left and right exchanged."""
    width = patch.size[1]
    cells = (dataclasses.replace(c, x=width - c.box[2], mask=c.mask[:, ::-1]) for c in patch.cells)
    return Patch(patch.image[:, ::-1], tuple(cells))


def flip_y(patch: Patch) -> Patch:
    """Top and bottom exchanged."""
    height = patch.size[0]
    cells = (dataclasses.replace(c, y=height - c.box[3], mask=c.mask[::-1]) for c in patch.cells)
    return Patch(patch.image[::-1], tuple(cells))


def turn(patch: Patch, quarters: int) -> Patch:
    """Turned counterclockwise by quarter turns, as ``np.rot90``."""
    for _ in range(quarters % 4):
        cells = (dataclasses.replace(c, x=c.y, y=c.x, mask=c.mask.T) for c in patch.cells)
        patch = flip_y(Patch(patch.image.T, tuple(cells)))
    return patch


# ---------------------------------------------------------------------------------------------- covering


def paste(patch: Patch, cells: Iterable[PatchCell], image: NDArray[np.uint8], min_visible: float) -> Patch:
    """A patch with further cells laid on top of its own, which lose what is covered.

    Args:
        cells: new cells, in the coordinates of the patch.
        image: the picture with the new cells in it, of the patch's size.
        min_visible: own cells stay when more than this share of their whole is left.
    """
    cells = tuple(cells)
    covered = np.zeros(patch.size, bool)
    for cell in cells:
        x0, y0, x1, y1 = cell.box
        covered[y0:y1, x0:x1] |= cell.mask
    under = []
    for cell in patch.cells:
        x0, y0, x1, y1 = cell.box
        left = dataclasses.replace(cell, mask=cell.mask & ~covered[y0:y1, x0:x1])
        if left.visible(min_visible):
            under.append(left)
    return Patch(image, (*under, *cells))
