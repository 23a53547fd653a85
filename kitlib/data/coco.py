"""COCO JSON files of cells: read into frames and written from them."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from kitlib import counts, files, rle
from kitlib.data.folders import SUFFIXES, check_size, some
from kitlib.errors import KitError
from kitlib.records import Cell, Frame

log = logging.getLogger(__name__)


def read(
    path: Path | str, images: Path | str, category: Callable[[str, str], str] = lambda file_name, name: name
) -> list[Frame]:
    """The frames of a COCO file, in its order of images.

    Crowd regions (``iscrowd`` 1) and masks that cover no pixel are left out, their number logged.
    ``annotations`` may be a list or a dict keyed by id. A frame's id is its file name without folder and
    extension; its category is that of its cells where they agree.

    Args:
        path: the JSON file.
        images: the folder with its images, searched with all sub-folders.
        category: from an image's file name and the COCO category's name to the cell's category.

    Raises:
        KitError: the JSON is cut short or lacks a key, an image is missing or has another size than stated,
            or an annotation is wrong.
    """
    path = Path(path)
    document = _document(path)
    places = _places(path, document["images"], Path(images))
    names = {c.get("id"): str(c.get("name")) for c in document.get("categories") or []}
    by_image = _by_image(path, document, names)
    frames, empty = [], 0
    for image in document["images"]:
        where = f"{path} image {image['id']} ({image['file_name']})"
        check_size(places[image["id"]], image["height"], image["width"], where)
        masks = [_mask(path, a, image["height"], image["width"]) for a in by_image[image["id"]]]
        named = [category(image["file_name"], names[a["category_id"]]) for a in by_image[image["id"]]]
        cells = tuple(Cell(m, n) for m, n, area in zip(masks, named, rle.areas(masks), strict=True) if area)
        empty += len(masks) - len(cells)
        frames.append(_frame(image, places[image["id"]], cells))
    if empty:
        log.warning("%s: %d annotations cover no pixel and are left out", path, empty)
    return frames


def write(path: Path | str, frames: Sequence[Frame]) -> Path:
    """Write frames as a COCO file: compressed RLE masks in COCO's own orientation, ids from 1, scores kept.

    pycocotools, and tools built on it, open the file. Image files are named without their folder.
    """
    categories = sorted({cell.category for frame in frames for cell in frame.cells})
    number = {name: index for index, name in enumerate(categories, 1)}
    images, annotations = [], []
    for image_id, frame in enumerate(frames, 1):
        name = frame.path.name if frame.path else f"{frame.id}.png"
        images.append({"id": image_id, "file_name": name, "height": frame.height, "width": frame.width})
        for cell in frame.cells:
            place = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number[cell.category]}
            annotations.append({**place, **_annotation(cell)})
    kinds = [{"id": n, "name": name, "supercategory": "cell"} for name, n in number.items()]
    document = {"images": images, "annotations": annotations, "categories": kinds}
    return files.write_text(path, json.dumps(document))


def _annotation(cell: Cell) -> dict[str, Any]:
    x0, y0, x1, y1 = rle.boxes([cell.mask])[0].tolist()
    standard = rle.to_coco(cell.mask)
    result: dict[str, Any] = {
        "segmentation": {"size": list(standard["size"]), "counts": standard["counts"].decode("ascii")},
        "area": int(rle.areas([cell.mask])[0]),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
    if cell.score is not None:
        result["score"] = cell.score
    return result


def _document(path: Path) -> dict[str, Any]:
    document = files.read_json(path)
    for key in ("images", "annotations"):
        if not isinstance(document, dict) or key not in document:
            raise KitError(f"{path} has no '{key}'; it is not a COCO file of instances, choose the right one")
    if isinstance(document["annotations"], dict):
        document["annotations"] = list(document["annotations"].values())
    for image in document["images"]:
        lacks = [key for key in ("id", "file_name", "height", "width") if key not in image]
        if lacks:
            raise KitError(f"{path} image {image.get('id', '?')} has no {some(lacks)}; add it")
    return document


def _places(path: Path, images: Iterable[dict[str, Any]], folder: Path) -> dict[Any, Path]:
    """The file of each image id: where ``file_name`` leads from the folder, else one so named below it."""
    if not folder.is_dir():
        raise KitError(
            f"{folder}, the images of {path}, is not a folder; check the path or download the data again"
        )
    by_name: dict[str, Path] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                by_name.setdefault(name, Path(root, name))
    places: dict[Any, Path] = {}
    stems: dict[str, str] = {}
    missing = []
    for image in images:
        name = image["file_name"]
        direct = folder / name
        place = direct if direct.is_file() else by_name.get(Path(name).name)
        if place is None:
            missing.append(name)
            continue
        if image["id"] in places or Path(name).stem in stems:
            raise KitError(
                f"{path} has two images with id {image['id']} or name '{Path(name).stem}'; rename one"
            )
        places[image["id"]], stems[Path(name).stem] = place, name
    if missing:
        raise KitError(
            f"{len(missing)} of the images in {path} are not under {folder}: {some(missing)}; "
            "copy or download them, or take them out of the JSON file"
        )
    return places


def _by_image(path: Path, document: dict[str, Any], names: dict[Any, str]) -> dict[Any, list[dict[str, Any]]]:
    known = {image["id"] for image in document["images"]}
    result: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    crowds = 0
    for annotation in document["annotations"]:
        where = f"{path} annotation {annotation.get('id', '?')}"
        if annotation.get("image_id") not in known:
            raise KitError(
                f"{where} belongs to image_id {annotation.get('image_id')}, which the file does not list; "
                "add the image or take the annotation out"
            )
        if annotation.get("category_id") not in names:
            raise KitError(
                f"{where} has category_id {annotation.get('category_id')}, which 'categories' does not list; "
                "add the category or correct the number"
            )
        if annotation.get("iscrowd"):
            crowds += 1
        else:
            result[annotation["image_id"]].append(annotation)
    if crowds:
        log.warning("%s: %d crowd regions are left out, they outline no single cell", path, crowds)
    return result


def _mask(path: Path, annotation: dict[str, Any], height: int, width: int) -> rle.RLE:
    segmentation = annotation.get("segmentation")
    try:
        if not segmentation:
            raise ValueError("it has no segmentation")
        if isinstance(segmentation, dict):
            return _from_run_lengths(segmentation, height, width)
        nested = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return _from_polygons(nested, height, width)
    except (ValueError, TypeError, KeyError) as error:
        raise KitError(
            f"{path} annotation {annotation.get('id', '?')} cannot be read as a mask: {error}; "
            "give polygons 'x, y, x, y, ...' of at least three points or COCO run lengths, or take it out"
        ) from error


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> rle.RLE:
    if any(len(p) % 2 for p in polygons):
        raise ValueError("a polygon has an odd count of numbers")
    if not all(math.isfinite(sum(p)) for p in polygons):
        raise ValueError("a polygon holds a number that is not finite")
    polygons = [p for p in polygons if len(p) >= 6]  # fewer than three points enclose nothing
    if not polygons:
        return rle.from_runs([], [], height, width)
    return rle.from_polygons(polygons, height, width)


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> rle.RLE:
    size, given = [int(v) for v in segmentation["size"]], segmentation["counts"]
    if size != [height, width]:
        raise ValueError(f"its size is {size}, the image's is {[height, width]}")
    text = None if isinstance(given, list) else str(given).encode("ascii")
    numbers = given if text is None else counts.expand([text])[0].tolist()
    if sum(numbers) != height * width or min(numbers) < 0:
        raise ValueError(f"its counts make {sum(numbers)} pixels, the image has {height * width}")
    if text is None:
        return rle.from_coco(coco_mask.frPyObjects({"size": size, "counts": given}, height, width))
    return rle.from_coco(rle.RLE(size=size, counts=text))


def _frame(image: dict[str, Any], place: Path, cells: tuple[Cell, ...]) -> Frame:
    kinds = {cell.category for cell in cells}
    category = kinds.pop() if len(kinds) == 1 else None
    return Frame(Path(image["file_name"]).stem, place, image["height"], image["width"], cells, category)
