"""A frame's cells as polygons along the edges of their pixels: ImageJ ROIs and GeoJSON for QuPath.

Coordinates are those of ImageJ and QuPath: pixel (x, y) is the square from (x, y) to (x + 1, y + 1), and a
polygon of a mask encloses its pixels exactly.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kitlib import files
from kitlib.export.pictures import category_colors, with_suffix
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.records import Cell, Frame

if TYPE_CHECKING:
    from roifile import ImagejRoi

Ring = NDArray[np.int64]


class Polygon(NamedTuple):
    """One 4-connected part of a mask; no ring touches itself.

    Attributes:
        outer: (N, 2) corners x, y in pixels; the last is not the first again.
        holes: a ring for each 8-connected hole.
        area: pixels, without the holes.
    """

    outer: Ring
    holes: tuple[Ring, ...]
    area: int


def polygons(mask: RLE) -> list[Polygon]:
    """The parts of a mask, the largest first; none for an empty mask.

    Example:
        >>> [(p.outer.tolist(), p.area) for p in polygons(rle.from_mask(np.array([[0, 1, 1]])))]
        [([[1, 0], [1, 1], [3, 1], [3, 0]], 2)]
    """
    x0, y0, x1, y1 = rle.boxes([mask])[0].tolist()
    inside = rle.crop(mask, (x0, y0, x1, y1)).view(np.uint8)
    if not inside.size:
        return []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    found = []
    for number, (x, y, w, h, area) in enumerate(stats[1:].tolist(), 1):
        part = labels[y : y + h, x : x + w] == number
        outer, *holes = _rings(part, x0 + x, y0 + y)
        found.append(Polygon(outer, tuple(holes), area))
    return sorted(found, key=lambda polygon: -polygon.area)


def _outlined(frame: Frame) -> Iterator[tuple[int, Cell, list[Polygon]]]:
    """The number, from 1, of each cell whose mask is not empty, the cell and its polygons."""
    for number, cell in enumerate(frame.cells, 1):
        parts = polygons(cell.mask)
        if parts:
            yield number, cell, parts


def _rings(part: NDArray[np.bool_], x: int, y: int) -> list[Ring]:
    """The outer ring and then the holes of a 4-connected part whose top left pixel is (x, y)."""
    # OpenCV's contours run through the centres of the outermost pixels. With every pixel doubled, these are
    # the quarters of pixels next to the edge, and rounding moves each to its pixel's corner.
    doubled = part.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = hierarchy[0, :, 3].tolist()
    ordered = sorted(range(len(found)), key=lambda index: parents[index] >= 0)
    origin = np.array([x, y])
    return [_corners((found[index][:, 0].astype(np.int64) + 1) // 2) + origin for index in ordered]


def _corners(ring: Ring) -> Ring:
    """The points of a closed line at which its direction changes."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


# ------------------------------------------------------------------------------------------ ImageJ


def write_rois(frame: Frame, path: Path) -> Path:
    """Write a zip of ImageJ ROIs, which its ROI Manager opens: one a cell, in the frame's order.

    A ROI is the outer ring of the cell's largest part. Its name has the cell's number, from 1, and category;
    its properties say in addition the score, and how many parts and holes the ROI leaves out.

    Args:
        frame: its cells; an empty mask gives no ROI.
        path: the file without its extension, which this function adds.
    """
    # Optional: only this format needs it.
    import roifile

    target = with_suffix(path, ".zip")
    with files.atomic(target) as temporary:
        roifile.roiwrite(temporary, _rois(frame), mode="w")
    return target


def _rois(frame: Frame) -> Iterator[ImagejRoi]:
    """The ROIs one by one: all at once would take kilobytes each."""
    import roifile

    colors = category_colors([frame])
    for number, cell, parts in _outlined(frame):
        roi = roifile.ImagejRoi.frompoints(parts[0].outer, name=f"{number:05d} {_safe(cell.category)}")
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.stroke_color = bytes((255, *colors[cell.category]))
        roi.props = _properties(cell, parts)
        yield roi


def _safe(category: str) -> str:
    """A category as part of the name of a file in the zip."""
    return "".join("_" if letter in '/\\:*?"<>|' else letter for letter in category)


def _properties(cell: Cell, parts: list[Polygon]) -> str:
    """ImageJ's ``key: value`` lines of a ROI."""
    facts: dict[str, Any] = {"category": " ".join(cell.category.split())}
    if cell.score is not None:
        facts["score"] = round(cell.score, 4)
    facts |= {"parts": len(parts), "holes": sum(len(part.holes) for part in parts)}
    return "".join(f"{key}: {value}\n" for key, value in facts.items())


# ------------------------------------------------------------------------------------------ GeoJSON


def write_geojson(frame: Frame, path: Path) -> Path:
    """Write a GeoJSON file that QuPath opens: a detection for each cell, with holes and all parts.

    Args:
        frame: its cells; an empty mask gives no detection.
        path: the file without its extension, which this function adds.
    """
    colors = category_colors([frame])
    target = with_suffix(path, ".geojson")
    with files.atomic(target) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write('{"type": "FeatureCollection", "features": [')
        for count, (number, cell, parts) in enumerate(_outlined(frame)):
            # One by one: all at once would take kilobytes each.
            feature = _feature(frame, number, cell, parts, colors[cell.category])
            out.write(f"{', ' if count else ''}{json.dumps(feature)}")
        out.write("]}")
    return target


def _feature(
    frame: Frame, number: int, cell: Cell, parts: list[Polygon], color: tuple[int, int, int]
) -> dict[str, Any]:
    measurements: dict[str, float] = {"area": sum(part.area for part in parts)}
    if cell.score is not None:
        measurements["score"] = cell.score
    shapes = [[_closed(ring) for ring in (part.outer, *part.holes)] for part in parts]
    single = len(shapes) == 1
    return {
        "type": "Feature",
        # QuPath wants a UUID, and two runs on the same image shall give the same file.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{frame.id}/{number}")),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": shapes[0] if single else shapes,
        },
        "properties": {
            "objectType": "detection",
            "name": str(number),
            "classification": {"name": cell.category, "color": list(color)},
            "measurements": measurements,
        },
    }


def _closed(ring: Ring) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]
