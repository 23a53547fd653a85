"""A patch: a frame or a part of one, with its cells, each mask within its box; its resizing and cropping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.records import Cell, Frame

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open
# Resized mask pixels of at least 0.5 are inside, also where rounding has made them smaller.
_INSIDE = 0.5 - 1e-6


@dataclass(frozen=True, slots=True)
class PatchCell:
    """One cell of a patch.

    Attributes:
        x: column of the mask's left edge in the patch.
        y: row of the mask's top edge in the patch.
        mask: (h, w) bool.
        label: class index.
        whole: pixels that the cell would have at this scale if no part of it were cut off or covered.
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
        return int(np.count_nonzero(self.mask)) > min_visible * self.whole


@dataclass(frozen=True, slots=True)
class Patch:
    """An image and its cells.

    Attributes:
        image: (H, W) uint8.
        cells: in the frame's order.
        ignore: (H, W) bool, the ignored area; None if there is none.
    """

    image: NDArray[np.uint8]
    cells: tuple[PatchCell, ...]
    ignore: NDArray[np.bool_] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def _overlap(a: Box, b: Box) -> Box | None:
    """The box that two boxes share, if any."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def take(frame: Frame, image: NDArray[np.uint8], label_of: Callable[[Cell], int], near: Box) -> Patch:
    """A patch of a whole frame with the cells whose boxes overlap ``near``.

    Args:
        frame: of which only those cells are decoded.
        image: (H, W) uint8, the frame's.
        label_of: gives a cell's class index.
        near: a box in the frame.
    """
    masks = [cell.mask for cell in frame.cells]
    boxes, areas = rle.boxes(masks), rle.areas(masks)
    x0, y0, x1, y1 = near
    overlaps = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    chosen = np.flatnonzero(overlaps).tolist()
    crops = rle.crops([masks[index] for index in chosen], boxes[chosen])
    cells = (
        PatchCell(x, y, crop, label_of(frame.cells[index]), float(areas[index]))
        for index, (x, y), crop in zip(chosen, boxes[chosen, :2].tolist(), crops, strict=True)
    )
    ignore = None if frame.ignore is None else rle.to_mask(frame.ignore)
    return Patch(image, tuple(cells), ignore)


def resize(patch: Patch, size: tuple[int, int]) -> Patch:
    """The patch at another (height, width), as ``cv2.resize`` with ``INTER_LINEAR`` samples it.

    A pixel is in a mask if its bilinear value is at least 0.5, which is what resizing the mask of the whole
    frame would give.
    """
    if patch.size == tuple(size):
        return patch
    image = cv2.resize(patch.image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(
        np.uint8, copy=False
    )
    rows, columns = (_Axis.between(old, new) for old, new in zip(patch.size, size, strict=True))
    boxes = np.array([cell.box for cell in patch.cells], np.int64).reshape(-1, 4)
    spans = zip(columns.new_spans(boxes[:, 0::2]), rows.new_spans(boxes[:, 1::2]), strict=True)
    cells = (_resized(cell, columns, rows, *x, *y) for cell, (x, y) in zip(patch.cells, spans, strict=True))
    ignore = None
    if patch.ignore is not None:
        resized = cv2.resize(patch.ignore.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        ignore = resized >= _INSIDE
    return Patch(image, tuple(cell for cell in cells if cell is not None), ignore)


class _Axis(NamedTuple):
    """Bilinear resizing along one axis: for each new pixel the two old pixels around it.

    Attributes:
        low: the first of the two.
        high: the second.
        weight: of the second; the first has 1 - weight.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def between(cls, old: int, new: int) -> _Axis:
        at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = at.astype(np.int64)
        return cls(low, np.minimum(low + 1, old - 1), (at - low).astype(np.float32))

    def new_spans(self, spans: NDArray[np.int64]) -> list[list[int]]:
        """For (n, 2) first and end of old pixels, first and end of the new pixels that depend on them."""
        first, end = self.high.searchsorted(spans[:, 0]), self.low.searchsorted(spans[:, 1])
        return np.stack([first, end], axis=1).tolist()

    def part(self, origin: int, first: int, end: int) -> _Axis:
        """The new pixels ``first`` to ``end``, with indices of old pixels relative to ``origin`` - 1."""
        return _Axis(
            self.low[first:end] - (origin - 1), self.high[first:end] - (origin - 1), self.weight[first:end]
        )


def _resized(
    cell: PatchCell, columns: _Axis, rows: _Axis, x0: int, x1: int, y0: int, y1: int
) -> PatchCell | None:
    """A cell on the new grid, in columns x0 to x1 and rows y0 to y1; None if no pixel is left."""
    height, width = cell.mask.shape
    columns, rows = columns.part(cell.x, x0, x1), rows.part(cell.y, y0, y1)
    padded = np.zeros((height + 2, width + 2), np.float32)
    padded[1:-1, 1:-1] = cell.mask
    down = padded[rows.low]
    down += rows.weight[:, None] * (padded[rows.high] - down)
    across = down[:, columns.low]
    across += columns.weight * (down[:, columns.high] - across)
    mask = across >= _INSIDE
    count = np.count_nonzero(mask)
    if not count:
        return None
    return PatchCell(x0, y0, mask, cell.label, count * cell.whole / np.count_nonzero(cell.mask))


def crop(patch: Patch, box: Box, min_visible: float) -> Patch:
    """The part of a patch inside a box.

    Args:
        patch: the patch to crop.
        box: may extend beyond the patch; pixels there have the image's median grey and are not ignored.
        min_visible: cells are removed unless more than this share of their whole is inside.
    """
    if box == (0, 0, patch.size[1], patch.size[0]):
        return replace(patch, cells=tuple(c for c in patch.cells if c.visible(min_visible)))
    image = _window(patch.image, box, lambda: np.median(patch.image))
    ignore = None if patch.ignore is None else _window(patch.ignore, box, lambda: False)
    cells = (_cropped(cell, box) for cell in patch.cells)
    return Patch(image, tuple(c for c in cells if c is not None and c.visible(min_visible)), ignore)


def _window(pixels: NDArray, box: Box, fill: Callable[[], float]) -> NDArray:
    """The pixels inside a box; ``fill`` returns the value of pixels beyond the image."""
    x0, y0, x1, y1 = box
    inside = pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if inside.shape == (y1 - y0, x1 - x0):
        return inside
    padded = np.full((y1 - y0, x1 - x0), fill(), pixels.dtype)
    top, left = max(-y0, 0), max(-x0, 0)
    padded[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return padded


def _cropped(cell: PatchCell, box: Box) -> PatchCell | None:
    inside = _overlap(cell.box, box)
    if inside is None:
        return None
    x0, y0, x1, y1 = inside
    mask = cell.mask[y0 - cell.y : y1 - cell.y, x0 - cell.x : x1 - cell.x]
    return replace(cell, x=x0 - box[0], y=y0 - box[1], mask=mask)


def flip_x(patch: Patch) -> Patch:
    """The patch with left and right exchanged."""
    width = patch.size[1]
    cells = (replace(c, x=width - c.box[2], mask=c.mask[:, ::-1]) for c in patch.cells)
    ignore = None if patch.ignore is None else patch.ignore[:, ::-1]
    return Patch(patch.image[:, ::-1], tuple(cells), ignore)


def flip_y(patch: Patch) -> Patch:
    """The patch with top and bottom exchanged."""
    height = patch.size[0]
    cells = (replace(c, y=height - c.box[3], mask=c.mask[::-1]) for c in patch.cells)
    ignore = None if patch.ignore is None else patch.ignore[::-1]
    return Patch(patch.image[::-1], tuple(cells), ignore)


def rot90(patch: Patch, times: int) -> Patch:
    """The patch rotated counterclockwise by ``times`` 90 degrees, as ``np.rot90``."""
    for _ in range(times % 4):
        cells = (replace(c, x=c.y, y=c.x, mask=c.mask.T) for c in patch.cells)
        ignore = None if patch.ignore is None else patch.ignore.T
        patch = flip_y(Patch(patch.image.T, tuple(cells), ignore))
    return patch


def paste(patch: Patch, cells: Iterable[PatchCell], image: NDArray[np.uint8], min_visible: float) -> Patch:
    """A patch with new cells on top, which cover its own cells and are no part of its ignored area.

    Args:
        patch: the patch below.
        cells: new cells, in the coordinates of the patch.
        image: (H, W) uint8, with the new cells in it.
        min_visible: cells of the patch are removed unless more than this share of their whole is left.
    """
    cells = tuple(cells)
    covered = np.zeros(patch.size, bool)
    for cell in cells:
        x0, y0, x1, y1 = cell.box
        covered[y0:y1, x0:x1] |= cell.mask
    under = []
    for cell in patch.cells:
        x0, y0, x1, y1 = cell.box
        left = replace(cell, mask=cell.mask & ~covered[y0:y1, x0:x1])
        if left.visible(min_visible):
            under.append(left)
    ignore = None if patch.ignore is None else patch.ignore & ~covered
    return Patch(image, (*under, *cells), ignore)
