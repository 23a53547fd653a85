"""LIVECell in its published size: images by line, and its annotation files with their known faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from kitlib import files
from kitlib.data.synthetic import published
from kitlib.data.synthetic.cell_lines import FOLDERS, HEAD, image_entry, image_name, outline, polygon
from kitlib.data.synthetic.drawings import Drawing, Drawings, LinkedImages, Shown
from kitlib.data.synthetic.frames import frame_id
from kitlib.data.synthetic.published import LINES, SPLITS, scaled

SINGLE_LINE = "SHSY5Y"
"""The line that has annotation files of its own, which hold their annotations as a dict."""

VERTEX_STEP = 4
"""Every fourth corner of an outline becomes a vertex: about 25 a cell, as the published polygons have."""

JITTER = 0.3
"""Pixels by which a vertex lies beside the outline (standard deviation)."""

DECIMALS = 4
"""Of a vertex: with them a million polygons take some 700 MB, as the published ones do."""


@dataclass(frozen=True, eq=False)
class Listing:
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
        say: is told what was written.
    """
    rng = np.random.default_rng(int(frame_id(seed, "livecell files"), 16))
    drawings = {line: Drawings(line, kind, size, rng) for line, kind in LINES.items()}
    say(f"frames of {len(LINES)} cell lines drawn")
    outlines = Outlines(rng)
    for split, listings in plan(drawings, share, rng).items():
        path = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
        _write_images(root / "images", split, listings)
        _write_annotations(path, listings, size, outlines)
        single = [listing for listing in listings if listing.line == SINGLE_LINE]
        folder = root / "annotations" / "LIVECell_single_cells" / SINGLE_LINE.lower()
        _write_annotations(folder / f"{split}.json", single, size, outlines, as_dict=True)
        cells = sum(listing.annotations for listing in listings)
        say(f"{path.name}: {len(listings):,} images, {cells:,} polygons, {path.stat().st_size / 1e6:.0f} MB")


# -------------------------------------------------------------------------------- what is listed


def plan(drawings: dict[str, Drawings], share: float, rng: np.random.Generator) -> dict[str, list[Listing]]:
    """The images of each split in the order of its file.

    Args:
        drawings: the frames of each line.
        share: of the published number of images; each fault is there at least once.
        rng: draws what is shown under which name.
    """
    in_both = scaled(published.VAL_IMAGES_IN_TRAIN, share)
    own = {split: scaled(part.files, share) for split, part in SPLITS.items()}
    own["val"] = max(1, own["val"] - in_both)
    listed = {split: _images(drawings, split, number, rng) for split, number in own.items()}
    listed["val"] += _some(listed["train"], in_both, rng)
    listed["train"] = _with_faulty_annotations(listed["train"], share, rng)
    for split, part in SPLITS.items():
        if part.ids > part.files:
            listed[split] = _with_second_listings(listed[split], scaled(part.ids - part.files, share), rng)
    return {split: _some(listings, len(listings), rng) for split, listings in listed.items()}


def _images(
    drawings: dict[str, Drawings], split: str, number: int, rng: np.random.Generator
) -> list[Listing]:
    by_line = published.apportion(number, {line: kind.images for line, kind in LINES.items()})
    return [
        Listing(image_name(line, split, index), line, shown)
        for line, images in by_line.items()
        if images
        for index, shown in enumerate(drawings[line].show(images, rng))
    ]


def _some(listings: Sequence[Listing], number: int, rng: np.random.Generator) -> list[Listing]:
    return [listings[i] for i in rng.permutation(len(listings))[:number]]


def _with_faulty_annotations(
    listings: list[Listing], share: float, rng: np.random.Generator
) -> list[Listing]:
    """Of the fuller images, some are left with 1 to 9 cells; of all others, some are outlined twice."""
    by_cells = sorted(listings, key=lambda listing: -len(listing.shown.cells))
    hardly = _some(by_cells[: len(by_cells) // 4 + 1], scaled(published.HARDLY_ANNOTATED, share), rng)
    twice = _some([i for i in by_cells if i not in hardly], scaled(published.OUTLINED_TWICE, share), rng)
    changed = {i.name: replace(i, outlined_twice=True) for i in twice}
    for place, listing in enumerate(hardly):
        number = min(1 + place % 9, max(1, len(listing.shown.cells) // 10))
        shown = replace(listing.shown, cells=listing.shown.cells[:number])
        changed[listing.name] = replace(listing, shown=shown)
    return [changed.get(listing.name, listing) for listing in listings]


def _with_second_listings(listings: list[Listing], number: int, rng: np.random.Generator) -> list[Listing]:
    """Name ``number`` images a second time; the second annotation lacks some cells of the first.

    Files are shuffled afterwards, so that the fuller of the two may come first or last.
    """
    sound = [i for i in listings if not i.outlined_twice and len(i.shown.cells) > 1]
    usual = [i for i in sound if i.line == published.MOST_RELISTED_LINE]
    chosen = _some(usual, max(1, number * 4 // 5), rng)
    chosen += _some([i for i in sound if i not in chosen], number - len(chosen), rng)
    return listings + [replace(i, shown=_with_fewer_cells(i.shown, rng)) for i in chosen]


def _with_fewer_cells(shown: Shown, rng: np.random.Generator) -> Shown:
    number = max(1, int(0.9 * len(shown.cells)))
    return replace(shown, cells=np.sort(rng.permutation(shown.cells)[:number]))


# -------------------------------------------------------------------------------- files


def _write_images(folder: Path, split: str, listings: Sequence[Listing]) -> None:
    images = LinkedImages(compression="tiff_lzw")
    for listing in listings:
        path = folder / FOLDERS[split] / listing.line / f"{listing.name}.tif"
        if not path.exists():
            files.make_folder(path.parent)
            images.add(path, listing.shown.drawing)


def _write_annotations(
    path: Path, listings: Sequence[Listing], size: tuple[int, int], outlines: Outlines, as_dict: bool = False
) -> None:
    """Write a COCO file piece by piece: images and annotations count on in one sequence, as LIVECell's do."""
    numbers = np.cumsum([1, *(1 + listing.annotations for listing in listings)]).tolist()
    images = (image_entry(n, listing.name, size) for n, listing in zip(numbers, listings, strict=False))
    with files.atomic(path) as temporary, temporary.open("w", encoding="ascii") as out:
        out.write(json.dumps(HEAD)[:-1] + ', "images": [')
        _write_joined(out, (json.dumps(image) for image in images))
        out.write('], "annotations": ' + ("{" if as_dict else "["))
        _write_joined(out, _annotations(listings, numbers, outlines, as_dict))
        out.write("}}" if as_dict else "]}")


def _annotations(
    listings: Sequence[Listing], numbers: Sequence[int], outlines: Outlines, as_dict: bool
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


class Outlines:
    """The annotations of drawings as JSON text, made when a drawing is first listed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._texts = rng, {}

    def of(self, listing: Listing) -> Iterator[str]:
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
        return [polygon(mask)[::VERTEX_STEP] for mask in drawing.masks]

    def _text(self, points: NDArray[np.float64]) -> str:
        placed = np.maximum(points + self._rng.normal(0, JITTER, points.shape), 0).round(DECIMALS)
        return json.dumps(outline(placed))[1:]
