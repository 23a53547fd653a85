"""COCO JSON files of cells: read into frames and written from them.

A file may be as large as LIVECell's, a million polygons in 733 MB: it is mapped into memory, its annotations
are listed without reading their outlines, and the outlines become masks on all cores, a few images at a time.
"""

from __future__ import annotations

import json
import logging
import mmap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePath
from typing import Annotated, Any, NamedTuple, TypeVar

import joblib
import msgspec
from msgspec import Raw, Struct
from pycocotools import mask as coco_mask

from kitlib import files
from kitlib.data.coco_images import Id, ListedImage, find_images, key
from kitlib.data.config import Findings
from kitlib.data.images import check_size, first_few
from kitlib.data.layout import image_id
from kitlib.errors import KitError
from kitlib.masks import rle, runs
from kitlib.records import Cell, Frame

_log = logging.getLogger(__name__)

# Annotations that a process turns into masks before it hands them over.
CHUNK = 4_000
# Annotations; fewer are read before other processes would have started.
PARALLEL_FROM = 20_000
# Of the annotations. With more crowds than this, the program that wrote the file marks every cell as one.
_CROWD_SHARE = 0.9
# Pixels from the origin; a polygon is drawn along its outline, so that one far away would take all memory.
_FAR = 1_000_000


class _Annotation(Struct, gc=False):
    image_id: Id
    category_id: Id
    id: Id = "?"
    iscrowd: int | float | bool | None = None
    score: float | None = None
    segmentation: Raw = Raw(b"null")


class _Category(Struct):
    id: Id
    name: Id


class _Images(Struct):
    images: list[ListedImage]


class _Document(_Images):
    annotations: list[_Annotation] | dict[str, _Annotation]
    categories: list[_Category] | None = None


_D = TypeVar("_D", bound=_Images)
_SEGMENTATION = msgspec.json.Decoder(list[float | list[float]] | dict[str, Any] | None)
_Near = Annotated[float, msgspec.Meta(ge=-_FAR, le=_FAR)]
# Checks each number of an outline as it is read, which takes no time.
_NEAR_SEGMENTATION = msgspec.json.Decoder(list[_Near | list[_Near]] | dict[str, Any] | None)


class _Drawn(NamedTuple):
    """The masks of an image's outlines as their counts, b"" for one without a pixel, and what was wrong."""

    texts: list[bytes]
    faults: list[str]


class _Outlined(NamedTuple):
    """An image with the outlines of its cells, as a process takes it: id and JSON text of each.

    Attributes:
        place: the image's file; None where only the COCO file is read.
    """

    id: Id
    file_name: str
    place: Path | None
    height: int
    width: int
    outlines: list[tuple[Id, bytes]]


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


def read_alone(path: Path | str) -> list[Frame]:
    """The frames of a COCO file without its images: sizes are taken from the file, and scores are read.

    A frame's id is its file name without extension, after the folders of the name: ``plate_A__img1``.

    Args:
        path: the JSON file.

    Raises:
        KitError: as ``CocoFile`` and ``CocoFile.frames``.
    """
    return list(CocoFile(path, None).frames())


def file_names(path: Path | str) -> set[str]:
    """The names, without folders, of the images that a COCO file lists; annotations are not read.

    Raises:
        KitError: the file is missing, cut short or not a COCO file.
    """
    return {Path(image.file_name).name for image in _decode(Path(path), _Images).images}


class CocoFile:
    """A COCO file whose lists are checked; its outlines are read by ``frames``.

    Of an image that is listed more than once, the entry with the most annotations is taken. Crowd regions
    (``iscrowd`` 1) are left out, their number logged, unless nearly every annotation is one: then it is how a
    program marks masks. ``annotations`` may be a list or a dict keyed by id; ids may be text in one list and
    numbers in another; file names may have the separators of Windows and either form of accented letters.

    Args:
        path: the JSON file.
        images: the folder with its images, searched with all sub-folders; None: the file is read alone.
        findings: where faults are added, and the image or annotation left out; None: the first one is raised,
            and images are refused that have another size than stated or the name of another one.

    Attributes:
        path: the JSON file.
        listed_twice: file names of the images that are listed more than once.

    Raises:
        KitError: the JSON is cut short or lacks a key. Without ``findings`` also: an image is missing, two
            different images share a name, or an annotation belongs to an image or a category that is not
            listed.
    """

    def __init__(self, path: Path | str, images: Path | str | None, findings: Findings | None = None) -> None:
        self.path, self._findings, self._alone = Path(path), findings, images is None
        document = _decode(self.path, _Document)
        self._names = {key(c.id): str(c.name) for c in document.categories or ()}
        folder = None if images is None else Path(images)
        places = find_images(self.path, document.images, folder, findings)
        self._annotations = self._by_image(document)
        chosen: dict[Path, ListedImage] = {}
        twice: dict[str, None] = {}
        for image in document.images:
            if image.file_name not in places:
                continue
            other = chosen.setdefault(places[image.file_name], image)
            if other is not image:
                twice[image.file_name] = None
                chosen[places[image.file_name]] = max(other, image, key=self._count)
        self.listed_twice = list(twice)
        if findings is not None:
            for name in twice:
                findings.add(places[name], "is listed more than once", "the fuller annotation taken")
        self._images = [(image, place) for place, image in chosen.items()]

    def frames(self, category: Callable[[str, str], str] = lambda file_name, name: name) -> Iterator[Frame]:
        """The frames one after the other, in the file's order of images; on all cores where there are many.

        A frame's id is its file name without folder and extension, or as ``read_alone`` says; its category is
        that of its cells where they agree. Masks that cover no pixel are left out, their number logged.

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
        strict = self._findings is None
        drawn = parallel(joblib.delayed(_masks)(self.path, self._outlined(chunk), strict) for chunk in chunks)
        empty = 0
        for chunk, found in zip(chunks, drawn, strict=True):
            for (image, place), (texts, faults) in zip(chunk, found, strict=True):
                empty += texts.count(b"") - len(faults)
                for fault in faults:
                    self._report(place, fault)
                yield self._frame(image, place, texts, category)
        if empty:
            self._report(self.path, f"has {empty} annotations that cover no pixel")

    def _report(self, file: Path, fault: str, action: str = "left out") -> None:
        """Note a fault that leaves the rest of the file usable."""
        if self._findings is None:
            _log.warning("%s %s: %s", file, fault, action)
        else:
            self._findings.add(file, fault, action)

    def _count(self, image: ListedImage) -> int:
        return len(self._annotations[key(image.id)])

    def _chunk_numbers(self) -> Callable[[tuple[ListedImage, Path]], int]:
        """A function of one image after the other that rises by 1 with each ``CHUNK`` annotations."""
        seen = 0

        def number(entry: tuple[ListedImage, Path]) -> int:
            nonlocal seen
            seen += self._count(entry[0]) + 1
            return seen // CHUNK

        return number

    def _outlined(self, chunk: Sequence[tuple[ListedImage, Path]]) -> list[_Outlined]:
        result = []
        for image, place in chunk:
            outlines = [(a.id, bytes(a.segmentation)) for a in self._annotations[key(image.id)]]
            size = int(image.height), int(image.width)
            file = None if self._alone else place
            result.append(_Outlined(image.id, image.file_name, file, *size, outlines))
        return result

    def _frame(
        self, image: ListedImage, place: Path, texts: list[bytes], category: Callable[[str, str], str]
    ) -> Frame:
        height, width = int(image.height), int(image.width)
        size = [width, height]
        annotations = self._annotations[key(image.id)]
        names = {
            i: category(image.file_name, self._names[i]) for i in {key(a.category_id) for a in annotations}
        }
        cells = tuple(
            Cell(
                rle.RLE(size=size, counts=text),
                names[key(annotation.category_id)],
                # Cells with scores would count as pseudo labels in a training.
                annotation.score if self._alone else None,
            )
            for annotation, text in zip(annotations, texts, strict=True)
            if text
        )
        categories = {cell.category for cell in cells}
        common = categories.pop() if len(categories) == 1 else None
        if self._alone:
            return Frame(image_id(place), None, height, width, cells, common)
        return Frame(place.stem, place, height, width, cells, common)

    def _by_image(self, document: _Document) -> Mapping[str, list[_Annotation]]:
        """The annotations of each image by the key of its id."""
        listed = document.annotations
        annotations = list(listed.values()) if isinstance(listed, dict) else listed
        known = {key(image.id) for image in document.images}
        lone = [a for a in annotations if key(a.image_id) not in known]
        self._check_known(lone, "image_id", "image", "the file")
        unnamed = [a for a in annotations if key(a.category_id) not in self._names]
        self._check_known(unnamed, "category_id", "category", "'categories'")
        crowds = sum(bool(a.iscrowd) for a in annotations)
        all_crowds = crowds > _CROWD_SHARE * len(annotations)
        if all_crowds:
            self._report(self.path, f"marks {crowds} of {len(annotations)} cells as crowds", "read as cells")
        elif crowds:
            self._report(self.path, f"has {crowds} crowd regions, which outline no single cell")
        result: dict[str, list[_Annotation]] = defaultdict(list)
        for a in annotations:
            usable = key(a.image_id) in known and key(a.category_id) in self._names
            if usable and (all_crowds or not a.iscrowd):
                result[key(a.image_id)].append(a)
        return result

    def _check_known(self, wrong: list[_Annotation], field: str, kind: str, where: str) -> None:
        """Report, or raise, annotations with an id that is not listed."""
        if not wrong:
            return
        ids = sorted({str(getattr(a, field)) for a in wrong})
        if self._findings is None:
            verb = "belongs to" if kind == "image" else "has"
            raise KitError(
                f"{self.path} annotation {wrong[0].id} {verb} {field} {getattr(wrong[0], field)}, "
                f"which {where} does not list; add the {kind} or correct the number"
            )
        fault = f"has {len(wrong)} annotations whose {field} it does not list: {first_few(ids)}"
        self._report(self.path, fault)


def write(path: Path | str, frames: Sequence[Frame]) -> Path:
    """Write frames as a COCO file: compressed RLE masks in COCO's own orientation, ids from 1, with scores.

    pycocotools, and tools built on it, open the file. Images are named with the folders that their ids
    name, so that ``read_alone`` gives frames of the same ids.
    """
    categories = sorted({cell.category for frame in frames for cell in frame.cells})
    number = {name: index for index, name in enumerate(categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_number, frame in enumerate(frames, 1):
        size = {"height": frame.height, "width": frame.width}
        images.append({"id": image_number, "file_name": _file_name(frame), **size})
        for cell in frame.cells:
            place = {
                "id": len(annotations) + 1,
                "image_id": image_number,
                "category_id": number[cell.category],
            }
            annotations.append({**place, **_annotation(cell)})
    listed = [{"id": n, "name": name, "supercategory": "cell"} for name, n in number.items()]
    document = {"images": images, "annotations": annotations, "categories": listed}
    return files.write_text(path, json.dumps(document))


def _file_name(frame: Frame) -> str:
    """The end of the image's path that makes its id; the id itself where none does: for a page of a file."""
    if frame.path is None:
        return f"{frame.id}.png"
    ends = (PurePath(*frame.path.parts[-length:]) for length in range(1, len(frame.path.parts)))
    made_of = next((end for end in ends if image_id(end) == frame.id), None)
    return made_of.as_posix() if made_of else f"{frame.id}{frame.path.suffix}"


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


# ------------------------------------------------------------------------------------------ the outlines


def _masks(path: Path, images: Sequence[_Outlined], strict: bool) -> list[_Drawn]:
    """The masks of each image. Runs in a process of its own; raises the first fault where ``strict``."""
    return [_masks_of(path, image, strict) for image in images]


def _masks_of(path: Path, image: _Outlined, strict: bool) -> _Drawn:
    if strict and image.place is not None:
        check_size(image.place, image.height, image.width, f"{path} image {image.id} ({image.file_name})")
    shapes: list[list[list[float]] | rle.RLE] = []
    faults = []
    for name, text in image.outlines:
        try:
            shapes.append(_shape(path, image, name, text))
        except KitError as error:
            if strict:
                raise
            faults.append(str(error).removeprefix(f"{path} "))
            shapes.append([])
    polygons = [index for index, shape in enumerate(shapes) if isinstance(shape, list)]
    masks: list[Any] = list(shapes)
    drawn = rle.from_polygons([masks[index] for index in polygons], image.height, image.width)
    for index, mask in zip(polygons, drawn, strict=True):
        masks[index] = mask
    areas = rle.areas(masks)
    texts = [mask["counts"] if area else b"" for mask, area in zip(masks, areas, strict=True)]
    return _Drawn(texts, faults)


def _shape(path: Path, image: _Outlined, name: Id, text: bytes) -> list[list[float]] | rle.RLE:
    """The polygons of an annotation, or the mask that its run lengths make."""
    try:
        segmentation = _decode_segmentation(text)
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


def _decode_segmentation(text: bytes) -> Any:
    try:
        return _NEAR_SEGMENTATION.decode(text)
    except msgspec.ValidationError:
        # What else is wrong comes first.
        _SEGMENTATION.decode(text)
        raise ValueError(f"a polygon leads more than {_FAR:,} pixels away") from None


def _polygons(polygons: list[list[float]]) -> list[list[float]]:
    if any(len(p) % 2 for p in polygons):
        raise ValueError("a polygon has an odd count of numbers")
    # Fewer than three points enclose nothing.
    return [p for p in polygons if len(p) >= 6]


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> rle.RLE:
    size, given = [int(v) for v in segmentation["size"]], segmentation["counts"]
    if size != [height, width]:
        raise ValueError(f"its size is {size}, the image's is {[height, width]}")
    text = None if isinstance(given, list) else str(given).encode("ascii")
    if text is not None and not runs.is_whole(text):
        raise ValueError("its counts are no whole text of COCO's")
    numbers = given if text is None else runs.expand([text])[0].tolist()
    if sum(numbers) != height * width or min(numbers) < 0:
        raise ValueError(f"its counts make {sum(numbers)} pixels, the image has {height * width}")
    if text is None:
        return rle.from_coco(coco_mask.frPyObjects({"size": size, "counts": given}, height, width))
    return rle.from_coco(rle.RLE(size=size, counts=text))
