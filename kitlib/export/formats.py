"""The formats by name, and the files of one image or of all images in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kitlib import files
from kitlib.errors import KitError, unknown
from kitlib.export import measures, pictures, shapes
from kitlib.records import Frame


@dataclass(frozen=True)
class Result:
    """A frame with cells, and its pixels.

    Attributes:
        frame: predicted or annotated; cells may overlap, see ``Frame.to_labels`` for what label images make
            of it.
        image: (H, W) or (H, W, C), of any type, of the frame's size: what intensities are measured on.
        shown: (H, W) grey levels, what outlines are drawn on; None makes them of the image.
        pixel_size: micrometres, for the table; None where it is not known.
        limited: whether cells may be missing, as the predictor's ``max_cells`` was reached.
    """

    frame: Frame
    image: NDArray
    shown: NDArray[np.uint8] | None = None
    pixel_size: float | None = None
    limited: bool = False

    @property
    def levels(self) -> NDArray[np.uint8]:
        """The grey levels of the image, (H, W)."""
        return pictures.grey(self.image) if self.shown is None else self.shown


class Format(NamedTuple):
    """How a format is written.

    Attributes:
        help: what it is, for ``kit predict --help``.
        write: writes one image's file, whose path it is given without the extension.
        join: makes the files of all images, in a folder, of the files of each; None where there are none.
    """

    help: str
    write: Callable[[Result, Path], Path]
    join: Callable[[Sequence[Path], Path], object] | None = None


def write(result: Result, folder: Path | str, formats: Iterable[str] | None = None) -> dict[str, Path]:
    """Write a frame in some formats: ``folder``/FORMAT/ID, with the format's extension.

    Args:
        result: the frame and its pixels.
        folder: made where it does not exist.
        formats: names out of ``FORMATS``; None for all.

    Returns:
        The file of each format.

    Raises:
        KitError: no such format, an image of another size, or a file cannot be written.

    Example:
        >>> write(Result(frame, image), "results", ["labels", "rois"])["labels"]
        PosixPath('results/labels/well_A1.png')
    """
    frame, image = result.frame, result.image
    if image.shape[:2] != (frame.height, frame.width):
        raise KitError(
            f"the image of {frame.id} is {image.shape[1]} x {image.shape[0]} pixels, "
            f"its frame {frame.width} x {frame.height}; give the image that the cells were found in"
        )
    if not files.stays_inside(PurePath(frame.id)):
        raise KitError(f"the frame's id '{frame.id[:80]}' leads out of the folder; give it another one")
    return {name: FORMATS[name].write(result, Path(folder, name, frame.id)) for name in check(formats)}


def join(folder: Path | str, written: Sequence[dict[str, Path]]) -> list[str]:
    """Write the files of all images into the folder: ``cells.csv`` and ``images.csv``, ``annotations.json``.

    Args:
        folder: where they go.
        written: what ``write`` returned for each image, all with the same formats.

    Returns:
        The formats that were joined.
    """
    joined = []
    for name in written[0] if written else ():
        combine = FORMATS[name].join
        if combine is not None:
            combine([paths[name] for paths in written], Path(folder))
            joined.append(name)
    return joined


def check(formats: Iterable[str] | None) -> tuple[str, ...]:
    """The formats, each once; all where None is given.

    Raises:
        KitError: there is no such format; the nearest is named.
    """
    chosen = tuple(FORMATS) if formats is None else tuple(dict.fromkeys(formats))
    for name in chosen:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    return chosen


# ------------------------------------------------------------------------------------------ tables


def _write_table(result: Result, path: Path) -> Path:
    frame, pixel_size = result.frame, result.pixel_size
    rows = {
        "image": measures.image_row(frame, result.levels, pixel_size, result.limited),
        "cells": measures.cell_rows(frame, result.image, pixel_size),
    }
    return files.write_json(pictures.with_suffix(path, ".json"), rows)


def _join_tables(paths: Sequence[Path], folder: Path) -> None:
    found = [files.read_json(path) for path in paths]
    cells = pd.DataFrame([row for rows in found for row in rows["cells"]])
    if cells.empty:
        cells = pd.DataFrame(columns=["image", "cell", "class", "score"])
    files.write_csv(folder / "cells.csv", cells)
    files.write_csv(folder / "images.csv", measures.images_table([rows["image"] for rows in found]))


# ------------------------------------------------------------------------------------------ COCO


def _write_coco(result: Result, path: Path) -> Path:
    # Imported here, as it needs an optional package.
    from kitlib.data import coco

    frame = result.frame
    suffix = frame.path.suffix if frame.path else ".png"
    # Images of two folders may have the same name, and a file may hold several images.
    named = replace(frame, path=Path(frame.id.removesuffix(suffix) + suffix))
    return coco.write(pictures.with_suffix(path, ".json"), [named])


def _join_coco(paths: Sequence[Path], folder: Path) -> None:
    """One COCO file of many, with new numbers of images, annotations and categories."""
    documents = [files.read_json(path) for path in paths]
    names = sorted({category["name"] for document in documents for category in document["categories"]})
    number = {name: index for index, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, document in enumerate(documents, 1):
        of_name = {category["id"]: number[category["name"]] for category in document["categories"]}
        images += [{**image, "id": image_id} for image in document["images"]]
        for annotation in document["annotations"]:
            place = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append({**annotation, **place, "category_id": of_name[annotation["category_id"]]})
    categories = [{"id": index, "name": name, "supercategory": "cell"} for name, index in number.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    files.write_text(folder / "annotations.json", json.dumps(document))


# ------------------------------------------------------------------------------------------ the registry

FORMATS: dict[str, Format] = {
    "labels": Format(
        "label image, 16-bit PNG (32-bit TIFF above 65,535 cells)",
        lambda result, path: pictures.write_labels(result.frame, path),
    ),
    "outlines": Format(
        "PNG of the image with outlines drawn",
        lambda result, path: pictures.write_outlines(result.frame, result.levels, path),
    ),
    "rois": Format(
        "zip of ImageJ ROIs, of each cell's largest part",
        lambda result, path: shapes.write_rois(result.frame, path),
    ),
    "coco": Format("COCO JSON of each image and of all (annotations.json)", _write_coco, _join_coco),
    "geojson": Format(
        "GeoJSON for QuPath",
        lambda result, path: shapes.write_geojson(result.frame, path),
    ),
    "table": Format(
        "measurements of all cells (cells.csv) and images (images.csv)", _write_table, _join_tables
    ),
}
