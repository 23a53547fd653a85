"""Synthetic cell lines in the layout of LIVECell: TIFF images by line, and COCO polygons.

``write_split`` draws each image; ``write`` makes the published number of images out of few drawings, with the
faults that the published annotation files have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import measure

from kitlib import files
from kitlib.data.synthetic import cultures
from kitlib.data.synthetic.cultures import scaled
from kitlib.data.synthetic.drawings import Drawing, Drawings, LinkedImages, Shown
from kitlib.data.synthetic.frames import frame, frame_id
from kitlib.masks import rle
from kitlib.masks.rle import RLE

_DRAWN_LINES = ("SHSY5Y", "A172", "Huh7")  # of ``write_split``
_FOLDERS = {
    "train": "livecell_train_val_images",
    "val": "livecell_train_val_images",
    "test": "livecell_test_images",
}
_ROWS = {"train": "A", "val": "E", "test": "G"}  # splits share no well
_INFO = {
    "year": "2021",
    "version": "1.0",
    "description": "Synthetic cells in the layout of the LIVECell 2021 Dataset",
    "contributor": "kitlib",
    "url": "",
    "date_created": "2021/01/19",
}
_LICENCE = {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
_HEAD = {
    "info": _INFO,
    "licenses": [_LICENCE],
    "categories": [{"supercategory": "cell", "id": 1, "name": "cell"}],
}
"""What an annotation file says before its images and annotations."""

_SINGLE_LINE = "SHSY5Y"
"""The line that has annotation files of its own, which hold their annotations as a dict."""

_VERTEX_STEP = 4
"""Every fourth corner of an outline becomes a vertex: about 25 a cell, as the published polygons have."""

_JITTER = 0.3
"""Pixels by which a vertex lies beside the outline (standard deviation)."""

_DECIMALS = 4
"""Of a vertex: with them a million polygons take some 700 MB, as the published ones do."""


def write_split(root: Path, split: str, seed: int, images: int, size: tuple[int, int]) -> None:
    """Write one split under ``root`` (LIVECell_dataset_2021): its images, and its annotations as COCO JSON.

    Args:
        root: the folder to write into.
        split: "train", "val" or "test".
        seed: draws the frames.
        images: how many, of each line in turn.
        size: height and width in pixels.
    """
    entries: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    # One sequence numbers images and annotations, as in LIVECell.
    number = 1
    for index in range(images):
        line = _DRAWN_LINES[index % len(_DRAWN_LINES)]
        name = _image_name(line, split, index // len(_DRAWN_LINES))
        picture, cells = frame(line, int(frame_id(seed, "livecell", split, index), 16), size)
        folder = files.make_folder(root / "images" / _FOLDERS[split] / line)
        with files.atomic(folder / f"{name}.tif") as temporary:
            Image.fromarray(picture).save(temporary, compression="tiff_lzw")
        entries["images"].append(_image_entry(number, name, size))
        for annotation_id, cell in enumerate(cells, number + 1):
            ids = {"id": annotation_id, "image_id": number}
            entries["annotations"].append({**ids, **_outline(polygon(cell.mask))})
        number += 1 + len(cells)
    target = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
    files.write_text(target, json.dumps({**_HEAD, **entries}))


def polygon(mask: RLE) -> NDArray[np.float64]:
    """The outline of a mask of one component without holes: (n, 2) x, y in COCO's pixel coordinates."""
    x0, y0, x1, y1 = rle.boxes([mask])[0].tolist()
    crop = rle.crop(mask, (x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    (rows_columns,) = measure.find_contours(crop.astype(float), 0.5)
    # The centre of a pixel lies at its index + 0.5.
    points = rows_columns[:-1, ::-1] + [x0 - 0.5, y0 - 0.5]
    return np.clip(points, 0, [mask["size"][0], mask["size"][1]])


def _image_entry(number: int, name: str, size: tuple[int, int]) -> dict:
    """How LIVECell's files list the image ``name`` (without extension) of ``size`` (height, width)."""
    return {
        "id": number,
        "width": size[1],
        "height": size[0],
        "file_name": f"{name}.tif",
        "original_filename": f"{name}.png",
        "url": "",
    }


def _image_name(line: str, split: str, index: int) -> str:
    """An image's name as in LIVECell: line, well, position, age of the culture, number of the crop."""
    well, age = divmod(index, 2)
    return f"{line}_Phase_{_ROWS[split]}{well % 12 + 1}_{well // 12 + 1}_{age:02d}d12h00m_1"


def _outline(points: NDArray[np.float64]) -> dict:
    """What a COCO annotation says of a cell with the outline ``points``, (n, 2) x, y in pixels."""
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    after = np.roll(points, -1, axis=0)
    area = abs(float(np.sum(points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]))) / 2
    return {
        "category_id": 1,
        "segmentation": [points.ravel().tolist()],
        "area": area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }


# -------------------------------------------------------------------------------- the published size


@dataclass(frozen=True, eq=False)
class _Listing:
    """One image of an annotation file.

    Attributes:
        name: of the image file, without extension.
        line: its cell line.
        shown: the drawing and its annotated cells.
        outlined_twice: whether each cell has two annotations.
    """

    name: str
    line: str
    shown: Shown
    outlined_twice: bool = False

    @property
    def annotations(self) -> int:
        return len(self.shown.cells) * (2 if self.outlined_twice else 1)


def write(root: Path, seed: int, share: float, size: tuple[int, int], say: Callable[[str], None]) -> None:
    """Write LIVECell under ``root`` (LIVECell_dataset_2021).

    Args:
        root: the folder to write into.
        seed: draws everything.
        share: of the published number of images; each fault is there at least once.
        size: height and width in pixels.
        say: prints a line of progress.
    """
    rng = np.random.default_rng(int(frame_id(seed, "livecell files"), 16))
    drawings = {line: Drawings(line, published, size, rng) for line, published in cultures.LINES.items()}
    say(f"frames of {len(cultures.LINES)} cell lines drawn")
    outlines = _Outlines(rng)
    for split, listings in plan(drawings, share, rng).items():
        path = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
        _write_images(root / "images", split, listings)
        _write_annotations(path, listings, size, outlines)
        single = [listing for listing in listings if listing.line == _SINGLE_LINE]
        folder = root / "annotations" / "LIVECell_single_cells" / _SINGLE_LINE.lower()
        _write_annotations(folder / f"{split}.json", single, size, outlines, as_dict=True)
        cells = sum(listing.annotations for listing in listings)
        say(f"{path.name}: {len(listings):,} images, {cells:,} polygons, {path.stat().st_size / 1e6:.0f} MB")


# -------------------------------------------------------------------------------- its images


def plan(drawings: dict[str, Drawings], share: float, rng: np.random.Generator) -> dict[str, list[_Listing]]:
    """The images of each split in the order of its file.

    Args:
        drawings: the frames of each line.
        share: of the published number of images; each fault is there at least once.
        rng: draws what is shown under which name.
    """
    in_both = scaled(cultures.VAL_IMAGES_IN_TRAIN, share)
    own = {split: scaled(part.files, share) for split, part in cultures.SPLITS.items()}
    own["val"] = max(1, own["val"] - in_both)
    listed = {split: _images(drawings, split, number, rng) for split, number in own.items()}
    listed["val"] += _draw(listed["train"], in_both, rng)
    listed["train"] = _with_faulty_annotations(listed["train"], share, rng)
    for split, part in cultures.SPLITS.items():
        if part.ids > part.files:
            listed[split] = _with_second_listings(listed[split], scaled(part.ids - part.files, share), rng)
    return {split: _draw(listings, len(listings), rng) for split, listings in listed.items()}


def _images(
    drawings: dict[str, Drawings], split: str, number: int, rng: np.random.Generator
) -> list[_Listing]:
    by_line = cultures.apportion(
        number, {line: published.images for line, published in cultures.LINES.items()}
    )
    return [
        _Listing(_image_name(line, split, index), line, shown)
        for line, images in by_line.items()
        if images
        for index, shown in enumerate(drawings[line].show(images, rng))
    ]


def _draw(listings: Sequence[_Listing], number: int, rng: np.random.Generator) -> list[_Listing]:
    """``number`` of the listings, in random order; all of them where there are fewer."""
    return [listings[i] for i in rng.permutation(len(listings))[:number]]


def _with_faulty_annotations(
    listings: list[_Listing], share: float, rng: np.random.Generator
) -> list[_Listing]:
    """Leave 1 to 9 cells in some of the fuller images, and outline the cells of some others twice."""
    by_cells = sorted(listings, key=lambda listing: -len(listing.shown.cells))
    hardly = _draw(by_cells[: len(by_cells) // 4 + 1], scaled(cultures.HARDLY_ANNOTATED, share), rng)
    twice = _draw([i for i in by_cells if i not in hardly], scaled(cultures.OUTLINED_TWICE, share), rng)
    changed = {i.name: replace(i, outlined_twice=True) for i in twice}
    for place, listing in enumerate(hardly):
        number = min(1 + place % 9, max(1, len(listing.shown.cells) // 10))
        shown = replace(listing.shown, cells=listing.shown.cells[:number])
        changed[listing.name] = replace(listing, shown=shown)
    return [changed.get(listing.name, listing) for listing in listings]


def _with_second_listings(listings: list[_Listing], number: int, rng: np.random.Generator) -> list[_Listing]:
    """List ``number`` images a second time with fewer cells; later shuffling decides which comes first."""
    sound = [i for i in listings if not i.outlined_twice and len(i.shown.cells) > 1]
    usual = [i for i in sound if i.line == cultures.MOST_RELISTED_LINE]
    chosen = _draw(usual, max(1, number * 4 // 5), rng)
    chosen += _draw([i for i in sound if i not in chosen], number - len(chosen), rng)
    return listings + [replace(i, shown=_with_fewer_cells(i.shown, rng)) for i in chosen]


def _with_fewer_cells(shown: Shown, rng: np.random.Generator) -> Shown:
    number = max(1, int(0.9 * len(shown.cells)))
    return replace(shown, cells=np.sort(rng.permutation(shown.cells)[:number]))


# -------------------------------------------------------------------------------- its files


def _write_images(folder: Path, split: str, listings: Sequence[_Listing]) -> None:
    images = LinkedImages(compression="tiff_lzw")
    for listing in listings:
        path = folder / _FOLDERS[split] / listing.line / f"{listing.name}.tif"
        if not path.exists():
            files.make_folder(path.parent)
            images.add(path, listing.shown.drawing)


def _write_annotations(
    path: Path,
    listings: Sequence[_Listing],
    size: tuple[int, int],
    outlines: _Outlines,
    as_dict: bool = False,
) -> None:
    """Write a COCO file piece by piece, with one sequence of numbers for images and annotations."""
    numbers = np.cumsum([1, *(1 + listing.annotations for listing in listings)]).tolist()
    images = (_image_entry(n, listing.name, size) for n, listing in zip(numbers, listings, strict=False))
    with files.atomic(path) as temporary, temporary.open("w", encoding="ascii") as out:
        out.write(json.dumps(_HEAD)[:-1] + ', "images": [')
        _write_joined(out, (json.dumps(image) for image in images))
        out.write('], "annotations": ' + ("{" if as_dict else "["))
        _write_joined(out, _annotations(listings, numbers, outlines, as_dict))
        out.write("}}" if as_dict else "]}")


def _annotations(
    listings: Sequence[_Listing], numbers: Sequence[int], outlines: _Outlines, as_dict: bool
) -> Iterator[str]:
    for image_id, listing in zip(numbers, listings, strict=False):
        for number, text in enumerate(outlines.of(listing), image_id + 1):
            key = f'"{number}": ' if as_dict else ""
            yield f'{key}{{"id": {number}, "image_id": {image_id}, {text}'


def _write_joined(out: TextIO, parts: Iterator[str]) -> None:
    separator = ""
    for part in parts:
        out.write(separator + part)
        separator = ", "


class _Outlines:
    """The annotations of drawings as JSON text, made when a drawing is first listed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._texts: dict[str, list[str]] = {}

    def of(self, listing: _Listing) -> Iterator[str]:
        """The text of each annotation of an image, after its ids and with the closing brace."""
        drawing = listing.shown.drawing
        if drawing.key not in self._texts:
            self._texts[drawing.key] = [self._text(points) for points in self._points(drawing)]
        texts = self._texts[drawing.key]
        yield from (texts[cell] for cell in listing.shown.cells)
        if listing.outlined_twice:
            points = self._points(drawing)
            yield from (self._text(points[cell]) for cell in listing.shown.cells)

    def _points(self, drawing: Drawing) -> list[NDArray[np.float64]]:
        return [polygon(mask)[::_VERTEX_STEP] for mask in drawing.masks]

    def _text(self, points: NDArray[np.float64]) -> str:
        placed = np.maximum(points + self._rng.normal(0, _JITTER, points.shape), 0).round(_DECIMALS)
        return json.dumps(_outline(placed))[1:]
