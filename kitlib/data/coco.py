"""COCO JSON files of cells: read into frames and written from them.

A file may be as large as LIVECell's, a million polygons in 733 MB: it is mapped into memory, its annotations
are listed without reading their outlines, and the outlines become masks on all cores, a few images at a time.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import joblib
import msgspec
from msgspec import Raw, Struct
from pycocotools import mask as coco_mask

from kitlib import files
from kitlib.data.images import SUFFIXES, check_size, first_few
from kitlib.errors import KitError
from kitlib.masks import rle, runs
from kitlib.records import Cell, Frame

_log = logging.getLogger(__name__)

# Annotations that a process turns into masks before it hands them over.
CHUNK = 4_000
# Annotations; fewer are read before other processes would have started.
PARALLEL_FROM = 20_000
_Id = int | str


class _Image(Struct, gc=False):
    id: _Id
    file_name: str
    height: int | float
    width: int | float


class _Annotation(Struct, gc=False):
    image_id: _Id
    category_id: _Id
    id: _Id = "?"
    iscrowd: int | float | bool | None = None
    segmentation: Raw = Raw(b"null")


class _Category(Struct):
    id: _Id
    name: _Id


class _Images(Struct):
    images: list[_Image]


class _Document(_Images):
    annotations: list[_Annotation] | dict[str, _Annotation]
    categories: list[_Category] | None = None


_D = TypeVar("_D", bound=_Images)
_SEGMENTATION = msgspec.json.Decoder(list[float | list[float]] | dict[str, Any] | None)


class _Outlined(NamedTuple):
    """An image with the outlines of its cells, as a process takes it: id and JSON text of each."""

    id: _Id
    file_name: str
    place: Path
    height: int
    width: int
    outlines: list[tuple[_Id, bytes]]


def read(
    path: Path | str, images: Path | str, category: Callable[[str, str], str] = lambda file_name, name: name
) -> list[Frame]:
    """The frames of a COCO file, as ``CocoFile.frames`` gives them.

    Args:
        path: the JSON file.
        images: the folder with its images, searched with all sub-folders.
        category: from an image's file name and the COCO category's name to the cell's category.

    Raises:
        KitError: as ``CocoFile`` and ``CocoFile.frames``.
    """
    return list(CocoFile(path, images).frames(category))


def file_names(path: Path | str) -> set[str]:
    """The names, without folders, of the images that a COCO file lists; annotations are not read.

    Raises:
        KitError: the file is missing, cut short or not a COCO file.
    """
    return {Path(image.file_name).name for image in _decode(Path(path), _Images).images}


class CocoFile:
    """A COCO file whose lists are checked; its outlines are read by ``frames``.

    Of an image that is listed more than once, the entry with the most annotations is taken. Crowd regions
    (``iscrowd`` 1) are left out, their number logged. ``annotations`` may be a list or a dict keyed by id.

    Attributes:
        path: the JSON file.
        listed_twice: file names of the images that are listed more than once.

    Raises:
        KitError: the JSON is cut short or lacks a key, an image is missing, two different images share a
            name, or an annotation belongs to an image or a category that is not listed.
    """

    def __init__(self, path: Path | str, images: Path | str) -> None:
        self.path = Path(path)
        document = _decode(self.path, _Document)
        self._names = {str(c.id): str(c.name) for c in document.categories or ()}
        places = _places(self.path, document.images, Path(images))
        self._annotations = self._by_image(document)
        chosen: dict[Path, _Image] = {}
        twice: dict[str, None] = {}
        for image in document.images:
            other = chosen.setdefault(places[image.file_name], image)
            if other is not image:
                twice[image.file_name] = None
                chosen[places[image.file_name]] = max(other, image, key=self._count)
        self.listed_twice = list(twice)
        self._images = [(image, place) for place, image in chosen.items()]

    def frames(self, category: Callable[[str, str], str] = lambda file_name, name: name) -> Iterator[Frame]:
        """The frames one after the other, in the file's order of images; on all cores where there are many.

        A frame's id is its file name without folder and extension; its category is that of its cells where
        they agree. Masks that cover no pixel are left out, their number logged.

        Args:
            category: from an image's file name and the COCO category's name to the cell's category.

        Raises:
            KitError: an image has another size than stated, or an outline is wrong.
        """
        total = sum(map(len, self._annotations.values()))
        parallel = joblib.Parallel(
            n_jobs=-1 if total > PARALLEL_FROM else 1, return_as="generator", max_nbytes=None
        )
        chunks = [list(group) for _, group in groupby(self._images, self._chunk_numbers())]
        masks = parallel(joblib.delayed(_masks)(self.path, self._outlined(chunk)) for chunk in chunks)
        empty = 0
        for chunk, found in zip(chunks, masks, strict=True):
            for (image, place), texts in zip(chunk, found, strict=True):
                empty += texts.count(b"")
                yield self._frame(image, place, texts, category)
        if empty:
            _log.warning("%s: %d annotations cover no pixel and are left out", self.path, empty)

    def _count(self, image: _Image) -> int:
        return len(self._annotations[str(image.id)])

    def _chunk_numbers(self) -> Callable[[tuple[_Image, Path]], int]:
        """A function of one image after the other that rises by 1 whenever ``CHUNK`` annotations are full."""
        seen = 0

        def number(entry: tuple[_Image, Path]) -> int:
            nonlocal seen
            seen += self._count(entry[0]) + 1
            return seen // CHUNK

        return number

    def _outlined(self, chunk: Sequence[tuple[_Image, Path]]) -> list[_Outlined]:
        result = []
        for image, place in chunk:
            outlines = [(a.id, bytes(a.segmentation)) for a in self._annotations[str(image.id)]]
            size = int(image.height), int(image.width)
            result.append(_Outlined(image.id, image.file_name, place, *size, outlines))
        return result

    def _frame(
        self, image: _Image, place: Path, texts: list[bytes], category: Callable[[str, str], str]
    ) -> Frame:
        height, width = int(image.height), int(image.width)
        size = [width, height]
        annotations = self._annotations[str(image.id)]
        names = {
            i: category(image.file_name, self._names[i]) for i in {str(a.category_id) for a in annotations}
        }
        cells = tuple(
            Cell(rle.RLE(size=size, counts=text), names[str(annotation.category_id)])
            for annotation, text in zip(annotations, texts, strict=True)
            if text
        )
        categories = {cell.category for cell in cells}
        common = categories.pop() if len(categories) == 1 else None
        return Frame(place.stem, place, height, width, cells, common)

    def _by_image(self, document: _Document) -> Mapping[str, list[_Annotation]]:
        """The annotations of each image, by its id as text: some files have it as text in one list only."""
        known = {str(image.id) for image in document.images}
        result: dict[str, list[_Annotation]] = defaultdict(list)
        crowds, listed = 0, document.annotations
        for annotation in listed.values() if isinstance(listed, dict) else listed:
            where = f"{self.path} annotation {annotation.id}"
            if str(annotation.image_id) not in known:
                raise KitError(
                    f"{where} belongs to image_id {annotation.image_id}, which the file does not list; "
                    "add the image or take the annotation out"
                )
            if str(annotation.category_id) not in self._names:
                raise KitError(
                    f"{where} has category_id {annotation.category_id}, which 'categories' does not list; "
                    "add the category or correct the number"
                )
            if annotation.iscrowd:
                crowds += 1
            else:
                result[str(annotation.image_id)].append(annotation)
        if crowds:
            _log.warning("%s: %d crowd regions are left out, they outline no single cell", self.path, crowds)
        return result


def write(path: Path | str, frames: Sequence[Frame]) -> Path:
    """Write frames as a COCO file: compressed RLE masks in COCO's own orientation, ids from 1, with scores.

    pycocotools, and tools built on it, open the file. Image files are named without their folder.
    """
    categories = sorted({cell.category for frame in frames for cell in frame.cells})
    number = {name: index for index, name in enumerate(categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in enumerate(frames, 1):
        name = frame.path.name if frame.path else f"{frame.id}.png"
        images.append({"id": image_id, "file_name": name, "height": frame.height, "width": frame.width})
        for cell in frame.cells:
            place = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number[cell.category]}
            annotations.append({**place, **_annotation(cell)})
    listed = [{"id": n, "name": name, "supercategory": "cell"} for name, n in number.items()]
    document = {"images": images, "annotations": annotations, "categories": listed}
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


# ------------------------------------------------------------------------------------------ the document


def _decode(path: Path, parts: type[_D]) -> _D:
    """The parts of a COCO file that the class ``parts`` has; the outlines stay text, in the file."""
    try:
        with path.open("rb") as file:
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        return msgspec.json.decode(text, type=parts)
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise KitError(f"{path} is not a COCO file of instances: {error}; correct that entry") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KitError(
            f"{path} is not whole JSON ({error}); it may be cut short: copy or download it again"
        ) from error


def _places(path: Path, images: Sequence[_Image], folder: Path) -> dict[str, Path]:
    """The file of each ``file_name``: that path in the folder, else a file of that name anywhere below it."""
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
    places: dict[str, Path | None] = {}
    for image in images:
        name = image.file_name
        places[name] = folder / name if (folder / name).is_file() else by_name.get(Path(name).name)
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise KitError(
            f"{len(missing)} of the images in {path} are not under {folder}: {first_few(missing)}; "
            "copy or download them, or take them out of the JSON file"
        )
    found = {name: place for name, place in places.items() if place is not None}
    _check_images(path, images, found)
    return found


def _check_images(path: Path, images: Sequence[_Image], places: Mapping[str, Path]) -> None:
    """Refuse an impossible size, one id of two images, and two images of one name."""
    by_id: dict[str, Path] = {}
    by_stem: dict[str, Path] = {}
    for image in images:
        place = places[image.file_name]
        if not all(
            math.isfinite(side) and side >= 1 and side == int(side) for side in (image.height, image.width)
        ):
            raise KitError(
                f"{path} image {image.id} has width {image.width} and height {image.height}; "
                "write the image's size in pixels"
            )
        if by_id.setdefault(str(image.id), place) != place:
            raise KitError(f"{path} has two images with id {image.id}; give one of them another id")
        if by_stem.setdefault(place.stem, place) != place:
            raise KitError(f"{path} has two images with the name '{place.stem}'; rename one")


# ------------------------------------------------------------------------------------------ the outlines


def _masks(path: Path, images: Sequence[_Outlined]) -> list[list[bytes]]:
    """The masks of each image as their counts; b"" for one without a pixel. Runs in a process of its own."""
    return [_masks_of(path, image) for image in images]


def _masks_of(path: Path, image: _Outlined) -> list[bytes]:
    check_size(image.place, image.height, image.width, f"{path} image {image.id} ({image.file_name})")
    shapes = [_shape(path, image, name, text) for name, text in image.outlines]
    polygons = [index for index, shape in enumerate(shapes) if isinstance(shape, list)]
    masks: list[Any] = list(shapes)
    drawn = rle.from_polygons([masks[index] for index in polygons], image.height, image.width)
    for index, mask in zip(polygons, drawn, strict=True):
        masks[index] = mask
    areas = rle.areas(masks)
    return [mask["counts"] if area else b"" for mask, area in zip(masks, areas, strict=True)]


def _shape(path: Path, image: _Outlined, name: _Id, text: bytes) -> list[list[float]] | rle.RLE:
    """The polygons of an annotation, or the mask that its run lengths make."""
    try:
        segmentation = _SEGMENTATION.decode(text)
        if not segmentation:
            raise ValueError("it has no segmentation")
        if isinstance(segmentation, dict):
            return _from_run_lengths(segmentation, image.height, image.width)
        return _polygons(segmentation if isinstance(segmentation[0], list) else [segmentation])
    # msgspec's errors are ValueErrors.
    except (ValueError, TypeError, KeyError) as error:
        raise KitError(
            f"{path} annotation {name} cannot be read as a mask: {str(error)[:200]}; "
            "give polygons 'x, y, x, y, ...' of at least three points or COCO run lengths, or take it out"
        ) from error


def _polygons(polygons: list[list[float]]) -> list[list[float]]:
    if any(len(p) % 2 for p in polygons):
        raise ValueError("a polygon has an odd count of numbers")
    if not all(math.isfinite(sum(p)) for p in polygons):
        raise ValueError("a polygon holds a number that is not finite")
    # Fewer than three points enclose nothing.
    return [p for p in polygons if len(p) >= 6]


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> rle.RLE:
    size, given = [int(v) for v in segmentation["size"]], segmentation["counts"]
    if size != [height, width]:
        raise ValueError(f"its size is {size}, the image's is {[height, width]}")
    text = None if isinstance(given, list) else str(given).encode("ascii")
    numbers = given if text is None else runs.expand([text])[0].tolist()
    if sum(numbers) != height * width or min(numbers) < 0:
        raise ValueError(f"its counts make {sum(numbers)} pixels, the image has {height * width}")
    if text is None:
        return rle.from_coco(coco_mask.frPyObjects({"size": size, "counts": given}, height, width))
    return rle.from_coco(rle.RLE(size=size, counts=text))
