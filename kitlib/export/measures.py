"""What biologists measure: one row a cell for ``cells.csv``, one row an image for ``images.csv``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kitlib.analysis.images import sharpness
from kitlib.export import regions
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
    """The measurements of each cell, in the frame's order, as scikit-image's ``regionprops`` defines them.

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
    areas = rle.areas([cell.mask for cell in frame.cells])
    numbered = [(number, cell) for number, cell in enumerate(frame.cells, 1) if areas[number - 1]]
    masks = [cell.mask for _, cell in numbered]
    shapes = regions.shapes(masks)
    columns = {name: values.tolist() for name, values in shapes._asdict().items()}
    columns |= _micrometres(shapes, pixel_size)
    columns |= _intensities(regions.intensity_sums(masks, _in_channels(image)), shapes.area)
    return [
        {"image": frame.id, "cell": number, "class": cell.category, "score": cell.score}
        | dict(zip(columns, values, strict=True))
        for (number, cell), *values in zip(numbered, *columns.values(), strict=True)
    ]


def _in_channels(image: NDArray) -> NDArray:
    """(H, W, C) of an image."""
    return image if image.ndim == 3 else image[..., None]


def _micrometres(shapes: regions.Shapes, pixel_size: float | None) -> dict[str, list[float]]:
    if pixel_size is None:
        return {}
    columns = shapes._asdict()
    return {name: (columns[key] * pixel_size**power).tolist() for key, (power, name) in _LENGTHS.items()}


def _intensities(sums: NDArray[np.float64], areas: NDArray[np.int64]) -> dict[str, list[float]]:
    """From the (N, C) sums of each cell."""
    columns = {}
    for channel, total in enumerate(sums.T, 1):
        end = f"_{channel}" if len(sums.T) > 1 else ""
        columns[f"mean_intensity{end}"] = (total / areas).tolist()
        columns[f"integrated_intensity{end}"] = total.tolist()
    return columns


def image_row(
    frame: Frame, levels: NDArray[np.uint8], pixel_size: float | None = None, limited: bool = False
) -> Row:
    """The counts and the quality of an image.

    Args:
        frame: its cells.
        levels: (H, W), the grey levels of the image.
        pixel_size: micrometres; None where it is not known.
        limited: whether cells may be missing, as the predictor's ``max_cells`` was reached.

    Returns:
        ``image``, ``height``, ``width``, ``pixel_size_um``, ``cells``, ``cells_CLASS`` for each class that
        occurs, ``cells_per_megapixel``, ``cells_per_mm2`` (None where the pixel size is not known),
        ``covered`` (the share of pixels that belong to a cell), ``sharpness`` (the variance of the
        Laplacian over that of the grey levels) and ``limited``.
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
        "sharpness": sharpness(levels),
        "limited": limited,
    }


def images_table(rows: Sequence[Row]) -> pd.DataFrame:
    """``images.csv`` of the rows of all images, with a last column ``flags``: what to look at, in words.

    Flags are "no cells", "very many cells" (1,000 or more), "limit of instances reached" (cells may be
    missing), "blank image", and "less sharp than the others", below a quarter of the median, where there are
    at least five images.
    """
    table = pd.DataFrame(rows).drop(columns="limited")
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
    if row["limited"]:
        yield "limit of instances reached"
    if not row["sharpness"]:
        yield "blank image"
    elif row["sharpness"] < least_sharpness:
        yield "less sharp than the others"
