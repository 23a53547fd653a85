"""Masks as run lengths.

A mask of a frame of H x W pixels is a pycocotools RLE of the frame's *transpose*, with size [W, H]. The
competition numbers pixels from 1, left to right and then down, and those run lengths are COCO's column-
major run lengths of the W x H transpose. So text becomes RLE and back without touching a pixel, and area,
IoU, union and boxes come from pycocotools as they are. This file alone knows of the transpose; arrays that
go in or out are H x W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from kitlib import counts
from kitlib.errors import KitError


class RLE(TypedDict):
    """A mask: ``size`` is [width, height] of its frame, ``counts`` COCO's compressed run lengths."""

    size: list[int]
    counts: bytes


class RleError(KitError):
    """A text that is not a valid annotation; ``index`` is its place among the texts parsed together."""

    def __init__(self, problem: str, index: int = 0) -> None:
        super().__init__(problem)
        self.index = index


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

    Raises:
        RleError: as ``parse``, for the first bad text; its ``index`` says which.
    """
    if not len(texts):
        return []
    values, bounds = _numbers(texts)
    heights, widths = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
    if values is None or np.any(np.diff(bounds) % 2) or np.any(np.diff(bounds) == 0):
        raise _first_problem(texts, heights, widths)
    starts, lengths, bounds = values[0::2] - 1, values[1::2], bounds // 2
    ends = starts + lengths
    owner_end = np.repeat(heights * widths, np.diff(bounds))
    gaps = starts[1:] - ends[:-1]
    gaps[bounds[1:-1] - 1] = 1  # from one text to the next there is no order to keep
    too_long = lengths > owner_end - starts  # ends themselves overflow where a length is absurd
    if (lengths < 1).any() or (starts < 0).any() or too_long.any() or (gaps < 0).any():
        raise _first_problem(texts, heights, widths)
    return _pack(starts, ends, bounds, heights, widths)


def to_text(r: RLE) -> str:
    """The competition annotation of a mask; an empty mask gives an empty text."""
    starts, lengths = runs(r)
    pairs = np.empty(2 * len(starts), np.int64)
    pairs[0::2], pairs[1::2] = starts + 1, lengths
    return " ".join(map(str, pairs.tolist()))


def problem(text: str, height: int, width: int) -> str | None:
    """What is wrong with an annotation, in words that also tell the mend; None if nothing is."""
    tokens = text.encode().split()  # bytes: only what ASCII calls blanks and digits
    if not tokens:
        return "the annotation is empty; a cell needs at least one 'start length' pair"
    for token in tokens:
        if not token.removeprefix(b"-").isdigit():
            return (
                f"'{token.decode()[:20]}' is not a whole number; "
                "write 'start length' pairs separated by blanks"
            )
    if len(tokens) % 2:
        return f"{len(tokens)} numbers, an odd count; every start needs a length"
    last_end = 1
    for start, length in zip(map(int, tokens[0::2]), map(int, tokens[1::2]), strict=True):
        if length < 1:
            return f"length {length} at start {start}; lengths must be at least 1"
        if start < 1 or start + length - 1 > height * width:
            return (
                f"pair '{start} {length}' leaves the {width} x {height} frame's pixels 1 to {height * width}"
            )
        if start < last_end:
            return (
                f"start {start} comes before the end of the pair before it; sort the pairs and merge overlaps"
            )
        last_end = start + length
    return None


def _first_problem(texts: Sequence[str], heights: NDArray, widths: NDArray) -> RleError:
    for index, text in enumerate(texts):
        found = problem(text, int(heights[index]), int(widths[index]))
        if found:
            return RleError(found, index)
    raise AssertionError("a batch was refused but none of its texts is wrong")


def _numbers(texts: Sequence[str]) -> tuple[NDArray | None, NDArray]:
    """All numbers in one array, and the bounds of each text's numbers; None where there is anything else."""
    try:
        buffer = " ".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return None, np.empty(0, np.int64)
    codes = np.frombuffer(buffer, np.uint8)
    digit = (codes >= 48) & (codes <= 57)
    if not (digit | (codes == 32) | (codes - 9 < 5)).all():  # 9 to 13: tabs, ends of lines
        return None, np.empty(0, np.int64)
    firsts = np.flatnonzero(digit[1:] & ~digit[:-1]) + 1
    if digit[:1].any():
        firsts = np.concatenate([[0], firsts])
    text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    bounds = np.concatenate([[0], np.searchsorted(firsts, text_ends)])
    return (np.fromstring(buffer, np.int64, sep=" ") if len(firsts) else np.empty(0, np.int64)), bounds


# -------------------------------------------------------------------------------- arrays


def from_mask(mask: NDArray) -> RLE:
    """The RLE of an (H, W) array, non-zero inside the cell. Contiguous bool or uint8 is not copied."""
    mask = np.ascontiguousarray(mask)
    flat = mask.view(np.uint8) if mask.dtype in (np.bool_, np.uint8) else (mask != 0).view(np.uint8)
    return coco.encode(flat.T)


def to_mask(r: RLE) -> NDArray[np.bool_]:
    """The (H, W) bool array of a mask, C-contiguous."""
    return coco.decode(r).T.view(np.bool_)


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
    keep = values != 0
    order = np.argsort(values[keep], kind="stable")
    starts, ends, values = starts[keep][order], ends[keep][order], values[keep][order]
    bounds = np.concatenate([np.flatnonzero(np.diff(values, prepend=values[:1] - 1)), [len(values)]])
    return _pack(starts, ends, bounds, np.full(len(bounds) - 1, height), np.full(len(bounds) - 1, width))


def from_crop(mask: NDArray, x: int, y: int, height: int, width: int) -> RLE:
    """The RLE of a box-local (h, w) array whose top left pixel lies at column x, row y of a frame.

    What sticks out of the frame is cut off. No full frame is made.
    """
    left, top = max(-x, 0), max(-y, 0)
    inside = np.asarray(mask)[top : max(height - y, 0), left : max(width - x, 0)] != 0
    padded = np.zeros((inside.shape[0], inside.shape[1] + 2), np.int8)
    padded[:, 1:-1] = inside
    change = np.diff(padded, axis=1)
    row, column = np.nonzero(change == 1)
    starts = (row + y + top) * width + column + x + left
    row, column = np.nonzero(change == -1)
    return _pack_one(starts, (row + y + top) * width + column + x + left, height, width)


def crop(r: RLE, box: Sequence[int]) -> NDArray[np.bool_]:
    """The part of a mask inside a box, as an (h, w) bool array; no full frame is made.

    Args:
        box: x0, y0, x1, y1 in pixels, half-open. Outside the frame there is no cell.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    width = r["size"][0]
    starts, ends = _split_rows(*runs(r), width)
    row, first = starts // width - y0, starts % width
    last = first + (ends - starts)
    first, last = np.clip(first - x0, 0, x1 - x0), np.clip(last - x0, 0, x1 - x0)
    keep = (row >= 0) & (row < y1 - y0) & (first < last)
    edges = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0) + 1), np.int8)
    edges[row[keep], first[keep]] = 1
    edges[row[keep], last[keep]] -= 1  # two runs of a row never touch, so no place is met twice
    return np.cumsum(edges[:, :-1], axis=1, dtype=np.int8).view(np.bool_)


def _split_rows(starts: NDArray, lengths: NDArray, width: int) -> tuple[NDArray, NDArray]:
    """Starts and ends of runs cut where they pass from one row into the next."""
    ends = starts + lengths
    spans = (ends - 1) // width - starts // width + 1
    if (spans == 1).all():
        return starts, ends
    part = np.arange(spans.sum()) - np.repeat(np.cumsum(spans) - spans, spans)
    starts, ends = np.repeat(starts, spans), np.repeat(ends, spans)
    row = starts // width + part
    return np.maximum(starts, row * width), np.minimum(ends, (row + 1) * width)


# -------------------------------------------------------------------------------- runs


def runs(r: RLE) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts (from 0, row-major) and lengths of a mask's runs, read from the RLE without making pixels."""
    edges = np.cumsum(counts.expand(r["counts"]))
    starts, ends = edges[0::2][: len(edges) // 2], edges[1::2]
    keep = ends > starts
    return starts[keep], (ends - starts)[keep]


def from_runs(starts: NDArray, lengths: NDArray, height: int, width: int) -> RLE:
    """The RLE of runs: ascending starts (from 0, row-major) and lengths; runs that touch are joined."""
    starts = np.asarray(starts, np.int64)
    return _pack_one(starts, starts + np.asarray(lengths, np.int64), height, width)


def _pack_one(starts: NDArray, ends: NDArray, height: int, width: int) -> RLE:
    """As ``_pack`` for a single mask; for one, pycocotools' own compression has less overhead."""
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, height * width
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    gaps_and_runs = np.diff(edges)
    if (gaps_and_runs[2:-1:2] == 0).any():  # runs that touch, say across the end of a row
        keep = np.concatenate([[True], starts[1:] != ends[:-1], [True]])
        return _pack_one(starts[keep[:-1]], ends[keep[1:]], height, width)
    if len(starts) and gaps_and_runs[-1] == 0:
        gaps_and_runs = gaps_and_runs[:-1]  # a frame that ends inside the cell has no last gap
    return coco.frPyObjects({"size": [width, height], "counts": gaps_and_runs.tolist()}, width, height)


def _pack(starts: NDArray, ends: NDArray, bounds: NDArray, heights: NDArray, widths: NDArray) -> list[RLE]:
    """RLEs of many masks: mask i has the ascending runs ``bounds[i]:bounds[i + 1]``, which may touch."""
    starts, ends, bounds = _join_touching(starts, ends, bounds)
    number, total = np.diff(bounds), np.asarray(heights, np.int64) * np.asarray(widths, np.int64)
    tail = total.copy()
    tail[number > 0] -= ends[bounds[1:][number > 0] - 1]
    size = 2 * number + (tail > 0)  # a frame that ends inside the cell has no last gap
    offsets = np.concatenate([[0], np.cumsum(size)])
    values = np.zeros(offsets[-1], np.int64)
    place = 2 * np.arange(len(starts)) + np.repeat(offsets[:-1] - 2 * bounds[:-1], number)
    before = np.concatenate([[0], ends[:-1]])
    before[bounds[:-1][number > 0]] = 0
    values[place], values[place + 1] = starts - before, ends - starts
    values[offsets[1:][tail > 0] - 1] = tail[tail > 0]
    text, bounds = counts.compress(values, offsets)
    sizes = zip(np.asarray(widths).tolist(), np.asarray(heights).tolist(), strict=True)
    pieces = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    return [RLE(size=[w, h], counts=text[a:b]) for (w, h), (a, b) in zip(sizes, pieces, strict=True)]


def _join_touching(starts: NDArray, ends: NDArray, bounds: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    touches = np.zeros(len(starts) + 1, bool)
    touches[1:-1] = starts[1:] == ends[:-1]
    touches[bounds] = False
    if not touches.any():
        return starts, ends, bounds
    removed = np.concatenate([[0], np.cumsum(touches[:-1])])
    return starts[~touches[:-1]], ends[~touches[1:]], bounds - removed[bounds]


# -------------------------------------------------------------------------------- measures


def height_width(r: RLE) -> tuple[int, int]:
    """The size of the frame that a mask belongs to, in pixels."""
    return r["size"][1], r["size"][0]


def areas(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """Pixels in each mask, (N,)."""
    # pycocotools 2.0.11 keeps the number of masks in a uint8: 256 and more of them overflow it
    parts = [coco.area(list(rles[i : i + 255])) for i in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def boxes(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """The tight box of each mask, (N, 4) as x0, y0, x1, y1, half-open; zeros for an empty mask."""
    if not len(rles):
        return np.zeros((0, 4), np.int64)
    y, x, h, w = coco.toBbox(list(rles)).astype(np.int64).T  # of the transpose
    return np.stack([x, y, x + w, y + h], axis=1)


def iou(a: Sequence[RLE], b: Sequence[RLE]) -> NDArray[np.float64]:
    """Intersection over union of each mask of ``a`` with each of ``b``, (A, B)."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    return coco.iou(list(a), list(b), [0] * len(b))


def merge(rles: Sequence[RLE]) -> RLE:
    """The union of masks of one frame; at least one."""
    return coco.merge(list(rles))


# -------------------------------------------------------------------------------- COCO files


def from_coco(r: RLE) -> RLE:
    """The mask of a COCO file's compressed RLE (size [height, width], column-major)."""
    return _transposed(r)


def to_coco(r: RLE) -> RLE:
    """The compressed RLE of a mask as COCO files have it (size [height, width], column-major)."""
    return _transposed(r)


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """The union of COCO polygons, pixel for pixel as pycocotools rasterises them.

    Args:
        polygons: each x, y, x, y, ... in pixels, at least three points.
    """
    return from_coco(coco.merge(coco.frPyObjects([list(p) for p in polygons], height, width)))


def _transposed(r: RLE) -> RLE:
    """Either orientation's mask as the other's: what one reads as its frame is the other's transpose."""
    height, width = height_width(r)
    x0, y0, x1, y1 = boxes([r])[0].tolist()
    return from_crop(crop(r, (x0, y0, x1, y1)).T, y0, x0, width, height)
