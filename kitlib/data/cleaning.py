"""Faults of hand-drawn masks, holes and stray parts: counted and, on demand, removed, without full frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from kitlib.config import Int, configuration
from kitlib.masks import rle
from kitlib.masks.topology import Topology, topology
from kitlib.records import Frame

# Two cells with a larger IoU are outlines of one.
_TWIN_IOU = 0.75


@dataclass(frozen=True)
class Faults:
    """Cells with holes, cells in several parts, and pairs of overlapping cells."""

    holes: int = 0
    broken: int = 0
    overlaps: int = 0

    def __add__(self, other: Faults) -> Faults:
        return Faults(self.holes + other.holes, self.broken + other.broken, self.overlaps + other.overlaps)


@configuration
class CleaningConfig:
    """How the faults of masks are cleaned; by default not at all."""

    fill_holes: bool = False
    """Fill background that a mask encloses (4-connected background, 8-connected cell)."""
    keep_largest: bool = False
    """Of a mask in several parts, keep the largest; the first one met of equals, row by row."""
    drop_ids: tuple[str, ...] = ()
    """Frames to leave out."""
    min_area: Annotated[Int, Field(ge=0)] = 0
    """Drop cells with fewer pixels than this, after the rest."""


def clean(frames: Iterable[Frame], config: CleaningConfig) -> list[Frame]:
    """Frames with clean masks; their images are not read."""
    cleaned = [frame for frame in frames if frame.id not in config.drop_ids]
    if config.fill_holes or config.keep_largest:
        cleaned = [_cleaned(frame, config.fill_holes, config.keep_largest) for frame in cleaned]
    return [_without_small(frame, config.min_area) for frame in cleaned] if config.min_area else cleaned


def faults(frame: Frame) -> Faults:
    """How many cells of a frame have holes or lie in several parts, and how many pairs of cells overlap."""
    masks = [cell.mask for cell in frame.cells]
    found = topology(masks)
    overlaps = np.triu(rle.iou(masks, masks) > 0, k=1).sum()
    return Faults(int((found.holes > 0).sum()), int((found.parts > 1).sum()), int(overlaps))


def twins(frame: Frame) -> int:
    """How many cells of a frame have another one there that covers nearly the same pixels."""
    masks = [cell.mask for cell in frame.cells]
    alike = rle.iou(masks, masks) > _TWIN_IOU
    # Each cell is like itself.
    return int((alike.sum(axis=1) > 1).sum())


def _cleaned(frame: Frame, fill_holes: bool, keep_largest: bool) -> Frame:
    masks = [cell.mask for cell in frame.cells]
    found = topology(masks)
    if fill_holes:
        for index in np.flatnonzero(found.holes):
            masks[index] = _filled(masks[index])
    if keep_largest and (found.parts > 1).any():
        # Filled holes change which part is the largest.
        found = topology(masks) if fill_holes else found
        bounds = np.searchsorted(found.owner, np.arange(len(masks) + 1))
        for index in np.flatnonzero(found.parts > 1):
            masks[index] = _largest(masks[index], found, slice(*bounds[index : index + 2]))
    pairs = zip(frame.cells, masks, strict=True)
    return replace(frame, cells=tuple(c if m is c.mask else replace(c, mask=m) for c, m in pairs))


def _without_small(frame: Frame, min_area: int) -> Frame:
    areas = rle.areas([cell.mask for cell in frame.cells])
    cells = tuple(cell for cell, area in zip(frame.cells, areas, strict=True) if area >= min_area)
    return replace(frame, cells=cells)


def _filled(mask: rle.RLE) -> rle.RLE:
    x0, y0, x1, y1 = rle.boxes([mask])[0].tolist()
    padded = np.pad(rle.crop(mask, (x0, y0, x1, y1)).astype(np.uint8), 1)
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    return rle.from_crop(padded[1:-1, 1:-1] != 2, x0, y0, *rle.height_width(mask))


def _largest(mask: rle.RLE, found: Topology, its: slice) -> rle.RLE:
    """The largest part of a mask, whose runs are those of ``its`` in the topology of many masks."""
    starts, lengths, part = found.starts[its], found.lengths[its], found.part[its]
    runs = part == np.argmax(np.bincount(part, weights=lengths))
    return rle.from_runs(starts[runs], lengths[runs], *rle.height_width(mask))
