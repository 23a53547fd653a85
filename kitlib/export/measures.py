"""What biologists measure: one row a cell for ``cells.csv``, one row an image for ``images.csv``."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage import measure

from kitlib.export.pictures import grey
from kitlib.masks import rle
from kitlib.records import Frame

Row = dict[str, Any]
#: Columns in pixels, the power of the pixel size that makes them micrometres, and the name with that unit.
_LENGTHS = {
    "centroid_x": (1, "centroid_x_um"),
    "centroid_y": (1, "centroid_y_um"),
    "area": (2, "area_um2"),
    "perimeter": (1, "perimeter_um"),
}
_MANY_CELLS = 1000
# An image is out of focus if it is this much less sharp than the median of at least so many images.
_BLURRED = 0.25
_COMPARABLE = 5


def cell_rows(frame: Frame, image: NDArray, pixel_size: float | None = None) -> list[Row]:
    """The measurements of each cell, in the frame's order; scikit-image's ``regionprops``, cell by cell.

    Each cell is measured on its own mask, also where it overlaps others.

    Args:
        frame: its cells; one with an empty mask gets no row.
        image: (H, W) or (H, W, C), of any type: intensities are those of its pixels as they are.
        pixel_size: micrometres; lengths are given in micrometres as well where it is known.

    Returns:
        ``image``, ``cell`` (its number from 1, as in the label image), ``class``, ``score`` (None for an
        annotated cell), ``centroid_x``, ``centroid_y`` (0 is the centre of the first pixel), ``area``,
        ``perimeter``, ``eccentricity``, ``solidity``, and ``mean_intensity`` and ``integrated_intensity``,
        which end in ``_1``, ``_2``, ... where there are several channels.
    """
    channels = image if image.ndim == 3 else image[..., None]
    boxes = rle.boxes([cell.mask for cell in frame.cells]).tolist()
    rows = []
    for number, (cell, box) in enumerate(zip(frame.cells, boxes, strict=True), 1):
        x0, y0, x1, y1 = box
        inside = rle.crop(cell.mask, box)
        if inside.size:
            row: Row = {"image": frame.id, "cell": number, "class": cell.category, "score": cell.score}
            row |= _shape(inside, x0, y0)
            rows.append(row | _micrometres(row, pixel_size) | _intensity(channels[y0:y1, x0:x1][inside]))
    return rows


def _shape(inside: NDArray[np.bool_], x0: int, y0: int) -> Row:
    region = measure.regionprops(inside.view(np.uint8))[0]
    y, x = region.centroid
    with warnings.catch_warnings():
        # A cell of one line of pixels has no convex hull; its solidity is 1 all the same.
        warnings.simplefilter("ignore")
        solidity = region.solidity
    return {
        "centroid_x": x0 + float(x),
        "centroid_y": y0 + float(y),
        "area": int(region.area),
        "perimeter": float(region.perimeter),
        "eccentricity": float(region.eccentricity),
        "solidity": float(solidity),
    }


def _micrometres(row: Mapping[str, Any], pixel_size: float | None) -> Row:
    if pixel_size is None:
        return {}
    return {name: row[key] * pixel_size**power for key, (power, name) in _LENGTHS.items()}


def _intensity(pixels: NDArray) -> Row:
    """From the (N, C) pixels of a cell."""
    sums = pixels.sum(axis=0, dtype=np.float64).tolist()
    row: Row = {}
    for channel, total in enumerate(sums, 1):
        end = f"_{channel}" if len(sums) > 1 else ""
        row |= {f"mean_intensity{end}": total / len(pixels), f"integrated_intensity{end}": total}
    return row


def image_row(frame: Frame, image: NDArray, pixel_size: float | None = None) -> Row:
    """The counts and the quality of an image; arguments as for ``cell_rows``.

    Returns:
        ``image``, ``height``, ``width``, ``pixel_size_um``, ``cells``, ``cells_CLASS`` for each class that
        occurs, ``cells_per_megapixel``, ``cells_per_mm2`` (None where the pixel size is not known),
        ``covered`` (the share of pixels that belong to a cell) and ``sharpness`` (the variance of the
        Laplacian over that of the grey levels).
    """
    masks = [cell.mask for cell in frame.cells]
    pixels, count = frame.height * frame.width, len(masks)
    covered = int(rle.areas([rle.merge(masks)])[0]) if masks else 0
    classes = Counter(cell.category for cell in frame.cells)
    row: Row = {"image": frame.id, "height": frame.height, "width": frame.width, "pixel_size_um": pixel_size}
    row |= {"cells": count} | {f"cells_{name}": classes[name] for name in sorted(classes)}
    square_mm = pixels * (pixel_size / 1000) ** 2 if pixel_size else None
    return row | {
        "cells_per_megapixel": count / pixels * 1e6,
        "cells_per_mm2": count / square_mm if square_mm else None,
        "covered": covered / pixels,
        "sharpness": _sharpness(grey(image)),
    }


def _sharpness(image: NDArray[np.uint8]) -> float:
    variance = float(image.var())
    return float(cv2.Laplacian(image, cv2.CV_32F).var()) / variance if variance else 0.0


def images_table(rows: Sequence[Row]) -> pd.DataFrame:
    """``images.csv`` of the rows of all images, with a last column ``flags``: what to look at, in words.

    Flags are "no cells", "very many cells" (1,000 or more), "blank image", and "less sharp than the others",
    below a quarter of the median, where there are at least five images.
    """
    table = pd.DataFrame(rows)
    counts = [name for name in table.columns if name.startswith("cells_") and name[6:] not in _DENSITIES]
    table[counts] = table[counts].fillna(0).astype(int)
    # Counts of classes that only later images have go beside the others.
    last = [name for name in table.columns if name not in counts and name not in _FIRST]
    table = table[[*_FIRST, *sorted(counts), *last]]
    sharp = [row["sharpness"] for row in rows]
    floor = _BLURRED * float(np.median(sharp)) if len(sharp) >= _COMPARABLE else 0.0
    return table.assign(flags=["; ".join(_flags(row, floor)) for row in rows])


_DENSITIES = ("per_megapixel", "per_mm2")
_FIRST = ("image", "height", "width", "pixel_size_um", "cells")


def _flags(row: Row, least_sharpness: float) -> Iterator[str]:
    if not row["cells"]:
        yield "no cells"
    if row["cells"] >= _MANY_CELLS:
        yield "very many cells"
    if not row["sharpness"]:
        yield "blank image"
    elif row["sharpness"] < least_sharpness:
        yield "less sharp than the others"
