"""Masks as run lengths.

A mask of a frame of H x W pixels is a pycocotools RLE of the frame's *transpose*, with size [W, H]. The
competition numbers pixels from 1, left to right and then down, and those run lengths are COCO's column-
major run lengths of the W x H transpose. So text becomes RLE and back without touching a pixel, and area,
IoU, union and boxes come from pycocotools as they are. This file alone knows of the transpose; arrays that
go in or out are H x W.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

from kitlib.masks import text
from kitlib.masks.runs import RowRuns, Runs, by_row, pack, unpack
from kitlib.masks.text import RleError as RleError
from kitlib.masks.text import problem as problem


class RLE(TypedDict):
    """A mask: ``size`` is [width, height] of its frame, ``counts`` COCO's compressed run lengths."""

    size: list[int]
    counts: bytes


# -------------------------------------------------------------------------------- competition text


def parse(text: str, height: int, width: int) -> RLE:
    """The mask that a competition annotation names.

    Args:
        text: "start length start length ...", starts from 1 in row-major order.
        height: the frame's rows.
        width: the frame's columns.

    Raises:
        RleError: odd count, non-number, zero or negative length, out of range, unsorted or overlapping pairs.

    Example:
        >>> to_mask(parse("2 2 5 1", height=2, width=3)).astype(int)
        array([[0, 1, 1],
               [0, 1, 0]])
    """
    return parse_all([text], [height], [width])[0]


def parse_all(texts: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> list[RLE]:
    """``parse`` of many texts at once, some fifteen times faster than one by one.

    Args:
        texts: N annotations.
        heights: the rows of each text's frame, (N,).
        widths: the columns of each text's frame, (N,).

    Raises:
        RleError: as ``parse``, for the first bad text; its ``index`` says which.
    """
    return _pack(text.read(texts, heights, widths), heights, widths)


def to_text(r: RLE) -> str:
    """The competition annotation of a mask; an empty mask gives an empty text."""
    return to_texts([r])[0]


def to_texts(rles: Sequence[RLE]) -> list[str]:
    """``to_text`` of many masks at once, some ten times faster than one by one."""
    return text.write(_unpack(rles))


# -------------------------------------------------------------------------------- arrays


def from_mask(mask: NDArray) -> RLE:
    """The RLE of an (H, W) array, non-zero inside the cell. Contiguous bool or uint8 is not copied."""
    mask = np.ascontiguousarray(mask)
    flat = mask.view(np.uint8) if mask.dtype in (np.bool_, np.uint8) else (mask != 0).view(np.uint8)
    return coco.encode(flat.T)


def to_mask(r: RLE) -> NDArray[np.bool_]:
    """The (H, W) bool array of a mask, C-contiguous."""
    height, width = height_width(r)
    flat = np.zeros(height * width, bool)
    starts, ends, _ = _unpack([r])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):  # pycocotools writes pixel by pixel
        flat[start:end] = True
    return flat.reshape(height, width)


def from_labels(labels: NDArray) -> list[RLE]:
    """The masks of all instances of a label map in one pass, in ascending order of label.

    Args:
        labels: (H, W) integers; 0 is background. Instances cannot overlap in it.
    """
    height, width = labels.shape
    flat = np.ascontiguousarray(labels).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes]) if flat.size else changes
    values, ends = flat[starts], np.concatenate([changes, [flat.size]])[: len(starts)]
    in_cell = values != 0
    order = np.argsort(values[in_cell], kind="stable")
    starts, ends, values = (part[in_cell][order] for part in (starts, ends, values))
    bounds = np.concatenate([np.flatnonzero(np.diff(values, prepend=values[:1] - 1)), [len(values)]])
    number = len(bounds) - 1
    return _pack(Runs(starts, ends, bounds), np.full(number, height), np.full(number, width))


def from_crop(mask: NDArray, x: int, y: int, height: int, width: int) -> RLE:
    """The RLE of a box-local (h, w) array whose top left pixel lies at column x, row y of a frame.

    Pixels outside the frame are cut off. No full frame is made.

    Args:
        mask: (h, w), non-zero inside the cell.
        x: the crop's left column in the frame; may be negative.
        y: the crop's top row in the frame; may be negative.
        height: the frame's rows.
        width: the frame's columns.

    Example:
        >>> to_text(from_crop(np.ones((2, 2)), x=2, y=0, height=4, width=3))
        '3 1 6 1'
    """
    edges = crop_edges(mask, x, y, height, width)
    return _pack_one(edges[::2], edges[1::2], height, width)


def crop_edges(mask: NDArray, x: int, y: int, height: int, width: int) -> NDArray[np.int64]:
    """(2 R,): where each run of ``from_crop``'s mask begins and ends (half-open), from 0, row-major.

    ``from_edges`` of many masks at once is faster than ``from_crop`` of each.

    Args:
        mask, x, y, height, width: as ``from_crop``.
    """
    left, top = max(-x, 0), max(-y, 0)
    inside = np.asarray(mask)[top : max(height - y, 0), left : max(width - x, 0)] != 0
    rows, columns = inside.shape
    # Each row has one column more, where the row's last run ends.
    padded = np.zeros(rows * (columns + 1) + 1, bool)
    padded[1:].reshape(rows, columns + 1)[:, :-1] = inside
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    # The pixels of the frame's rows above that are not in the crop's.
    skipped = edges // (columns + 1) * (width - columns - 1)
    return edges + skipped + ((y + top) * width + x + left)


def from_edges(edges: Sequence[NDArray[np.int64]], height: int, width: int) -> list[RLE]:
    """The RLEs of masks of one frame.

    Args:
        edges: for each mask, start and end of its first run, of its second, ..., as ``crop_edges``.
        height: the frame's rows.
        width: the frame's columns.
    """
    flat = np.concatenate([np.zeros(0, np.int64), *edges])
    bounds = np.cumsum([0, *(len(e) // 2 for e in edges)])
    sizes = np.full(len(edges), height), np.full(len(edges), width)
    return _pack(Runs(flat[::2], flat[1::2], bounds), *sizes)


def crop(r: RLE, box: Sequence[int]) -> NDArray[np.bool_]:
    """The part of a mask inside a box, as an (h, w) bool array; no full frame is made.

    Args:
        r: the mask.
        box: x0, y0, x1, y1 in pixels, half-open. Outside the frame there is no cell.
    """
    return crops([r], [box])[0]


def crops(rles: Sequence[RLE], boxes: ArrayLike) -> list[NDArray[np.bool_]]:
    """``crop`` of many masks at once, each with its (N, 4) box, many times faster than one by one."""
    x0, y0, x1, y1 = np.asarray(boxes, np.int64).reshape(-1, 4).T
    heights, widths = np.maximum(y1 - y0, 0), np.maximum(x1 - x0, 0)
    owner, row, first, end = row_runs(rles)
    row, width = row - y0[owner], widths[owner]
    first, end = ((column - x0[owner]).clip(0, width) for column in (first, end))
    in_box = (row >= 0) & (row < heights[owner]) & (first < end)
    # One column more than a box has: where a row's last run ends, so that the sum is 0 again for the next.
    offsets = np.concatenate([[0], np.cumsum(heights * (widths + 1))])
    row_start = (offsets[owner] + row * (width + 1))[in_box]
    edges = np.zeros(offsets[-1], np.int8)
    edges[row_start + first[in_box]] = 1
    # Subtracted, not set to -1: where two runs touch, the end of one is the start of the next.
    edges[row_start + end[in_box]] -= 1
    inside = np.cumsum(edges, dtype=np.int8).view(np.bool_)
    parts = zip(itertools.pairwise(offsets.tolist()), heights.tolist(), widths.tolist(), strict=True)
    return [np.ascontiguousarray(inside[a:b].reshape(h, w + 1)[:, :w]) for (a, b), h, w in parts]


# -------------------------------------------------------------------------------- runs


def runs(r: RLE) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts (from 0, row-major) and lengths of a mask's runs, read from the RLE without making pixels."""
    starts, ends, _ = _unpack([r])
    return starts, ends - starts


def row_runs(rles: Sequence[RLE]) -> RowRuns:
    """The runs of many masks, cut where they pass from one row into the next."""
    return by_row(_unpack(rles), np.array([r["size"][0] for r in rles], np.int64))


def pixels(rles: Sequence[RLE]) -> list[NDArray[np.int64]]:
    """The indices of each mask's pixels in its flattened row-major frame, ascending."""
    starts, ends, bounds = _unpack(rles)
    lengths = ends - starts
    after = np.cumsum(lengths)
    flat = np.repeat(starts - (after - lengths), lengths) + np.arange(lengths.sum())
    cuts = np.concatenate([[0], after])[bounds]
    return [flat[a:b] for a, b in itertools.pairwise(cuts.tolist())]


def from_runs(starts: NDArray, lengths: NDArray, height: int, width: int) -> RLE:
    """The RLE of runs; runs that touch are joined.

    Args:
        starts: (R,) ascending, from 0, row-major.
        lengths: (R,) in pixels.
        height: the frame's rows.
        width: the frame's columns.
    """
    starts = np.asarray(starts, np.int64)
    return _pack_one(starts, starts + np.asarray(lengths, np.int64), height, width)


def _pack_one(starts: NDArray, ends: NDArray, height: int, width: int) -> RLE:
    """As ``_pack`` for a single mask; for one, pycocotools' own compression has less overhead."""
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, height * width
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    gaps_and_runs = np.diff(edges)
    # Runs may touch, for example across the end of a row.
    if (gaps_and_runs[2:-1:2] == 0).any():
        apart = np.concatenate([[True], starts[1:] != ends[:-1], [True]])
        return _pack_one(starts[apart[:-1]], ends[apart[1:]], height, width)
    if len(starts) and gaps_and_runs[-1] == 0:
        # A frame that ends inside the cell has no last gap.
        gaps_and_runs = gaps_and_runs[:-1]
    return coco.frPyObjects({"size": [width, height], "counts": gaps_and_runs.tolist()}, width, height)


def _pack(runs: Runs, heights: ArrayLike, widths: ArrayLike) -> list[RLE]:
    texts = pack(runs, np.asarray(heights, np.int64) * np.asarray(widths, np.int64))
    sizes = zip(np.asarray(widths).tolist(), np.asarray(heights).tolist(), strict=True)
    return [RLE(size=[w, h], counts=text) for (w, h), text in zip(sizes, texts, strict=True)]


def _unpack(rles: Sequence[RLE]) -> Runs:
    return unpack([r["counts"] for r in rles])


# -------------------------------------------------------------------------------- measures


def height_width(r: RLE) -> tuple[int, int]:
    """The size of the frame that a mask belongs to, in pixels."""
    return r["size"][1], r["size"][0]


def areas(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """Pixels in each mask, (N,)."""
    # pycocotools 2.0.11 keeps the number of masks in a uint8: 256 and more of them overflow it
    parts = [coco.area(list(rles[i : i + 255])) for i in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def covered(rles: Sequence[RLE]) -> int:
    """Pixels that masks of one frame cover together, many times faster than the area of ``merge``."""
    starts, ends, _ = _unpack(rles)
    order = np.argsort(starts)
    reached = np.maximum.accumulate(np.append(0, ends[order]))
    return int(np.maximum(reached[1:] - np.maximum(reached[:-1], starts[order]), 0).sum())


def boxes(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """The tight box of each mask, (N, 4) as x0, y0, x1, y1, half-open; zeros for an empty mask."""
    if not len(rles):
        return np.zeros((0, 4), np.int64)
    # Boxes of the transpose.
    y, x, h, w = coco.toBbox(list(rles)).astype(np.int64).T
    return np.stack([x, y, x + w, y + h], axis=1)


def iou(a: Sequence[RLE], b: Sequence[RLE]) -> NDArray[np.float64]:
    """Intersection over union of each mask of ``a`` with each of ``b``, (A, B)."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    return coco.iou(list(a), list(b), [0] * len(b))


def shares(a: Sequence[RLE], b: Sequence[RLE]) -> NDArray[np.float64]:
    """The share of each mask of ``a`` that lies in each of ``b``, (A, B); 0 of an empty mask."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    # The IoU with a crowd is the intersection over the area of the first mask.
    return np.nan_to_num(coco.iou(list(a), list(b), [1] * len(b)))


def merge(rles: Sequence[RLE]) -> RLE:
    """The union of masks of one frame; at least one."""
    return coco.merge(list(rles))


# -------------------------------------------------------------------------------- COCO files


def from_coco(r: RLE) -> RLE:
    """The mask of a COCO file's compressed RLE (size [height, width], column-major)."""
    return from_coco_all([r])[0]


def from_coco_all(rles: Sequence[RLE]) -> list[RLE]:
    """``from_coco`` of many masks of one frame at once, some eight times faster than one by one."""
    return _transposed(rles)


def to_coco(r: RLE) -> RLE:
    """The compressed RLE of a mask as COCO files have it (size [height, width], column-major)."""
    return _transposed([r])[0]


def from_polygons(shapes: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> list[RLE]:
    """The masks of COCO polygons of one frame, pixel for pixel as pycocotools rasterises them.

    Args:
        shapes: for each mask its polygons, of which it is the union. A polygon is x, y, x, y, ... in pixels
            and has at least three points; a mask without polygons is empty.
        height: the frame's rows.
        width: the frame's columns.
    """
    polygons = [list(polygon) for shape in shapes for polygon in shape]
    parts = iter(coco.frPyObjects(polygons, height, width) if polygons else ())
    return from_coco_all([_union([next(parts) for _ in shape], height, width) for shape in shapes])


def _union(parts: list[RLE], height: int, width: int) -> RLE:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return coco.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)
    return coco.merge(parts)


def _transposed(rles: Sequence[RLE]) -> list[RLE]:
    """Masks from COCO's orientation to the kit's, or back: each is the other's transpose."""
    if not len(rles):
        return []
    height, width = height_width(rles[0])
    tight = boxes(rles)
    corners = tight[:, :2].tolist()
    edges = [
        crop_edges(inside.T, y, x, width, height)
        for (x, y), inside in zip(corners, crops(rles, tight), strict=True)
    ]
    return from_edges(edges, width, height)
