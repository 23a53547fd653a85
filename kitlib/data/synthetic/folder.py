"""A complete data folder in the competition's layout, drawn from a seed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kitlib import files
from kitlib.data.synthetic import cell_lines
from kitlib.data.synthetic.frames import check, frame, frame_id
from kitlib.data.synthetic.plates import exposure
from kitlib.data.tables import ANNOTATION_COLUMNS
from kitlib.errors import KitError
from kitlib.masks import rle

STAMP = "synthetic.json"
VERSION = 1  # of the drawing; a folder of another version is drawn again
SHARES = {"astro": 131 / 606, "cort": 320 / 606, "shsy5y": 155 / 606}  # of the competition's training images
LEAST_OF_A_TYPE = 6
_WRITTEN = (
    *("train.csv", "test_truth.csv", "sample_submission.csv"),
    *("train", "test", "train_semi_supervised", "LIVECell_dataset_2021"),
)


def ensure(folder: Path | str, seed: int = 0, images: int = 24, size: tuple[int, int] = (256, 256)) -> Path:
    """``write``, unless the folder already holds just that; one left half-written is written again."""
    folder = Path(folder)
    stamp = folder / STAMP
    if stamp.is_file() and files.read_json(stamp) == _stamp(seed, images, size, complete=True):
        return folder
    return write(folder, seed, images, size)


def write(folder: Path | str, seed: int = 0, images: int = 24, size: tuple[int, int] = (256, 256)) -> Path:
    """Draw a data set and write it in the competition's layout, with the test images' truth beside it.

    ``test_truth.csv`` has the columns of ``train.csv``. The same arguments give the same bytes.

    Args:
        folder: is made; one that an earlier call made is written anew.
        seed: draws everything.
        images: labelled images, at least 3. There are 3/8 as many test and unlabelled images and 3/4 as
            many of cell lines (train, val and test), but at least 3 of each, and 1 of a cell-line split.
        size: height and width of every image, in pixels.

    Raises:
        KitError: a bad argument, a folder that holds something else, or one that cannot be written.
    """
    check(seed, size)
    if images < 3:
        raise KitError(f"{images} images are too few; give at least 3, one of each type")
    folder = make_way(Path(folder))
    files.write_json(folder / STAMP, _stamp(seed, images, size, complete=False))
    few = max(3, images * 3 // 8)
    train = [category for category, count in shares(images).items() for _ in range(count)]
    turns = [list(SHARES)[index % len(SHARES)] for index in range(few)]
    _write_annotated(folder / "train", folder / "train.csv", "train", train, seed, size)
    ids = _write_annotated(folder / "test", folder / "test_truth.csv", "test", turns, seed, size)
    write_table(folder / "sample_submission.csv", ("id", "predicted"), ([name, ""] for name in ids))
    _write_unlabelled(folder / "train_semi_supervised", turns, seed, size)
    for split, count in {"train": max(3, images // 2), "val": images // 8, "test": images // 8}.items():
        cell_lines.write_split(folder / "LIVECell_dataset_2021", split, seed, max(1, count), size)
    files.write_json(folder / STAMP, _stamp(seed, images, size, complete=True))
    return folder


def shares(images: int) -> dict[str, int]:
    """How many of ``images`` show each type: as in the competition, but at least 6 where they suffice."""
    counts = dict.fromkeys(SHARES, min(LEAST_OF_A_TYPE, images // len(SHARES)))
    while sum(counts.values()) < images:
        neediest = max(SHARES, key=lambda category: SHARES[category] * images - counts[category])
        counts[neediest] += 1
    return counts


def make_way(folder: Path) -> Path:
    """An empty place for the data set: only what ``write`` itself left in ``folder`` is deleted."""
    if folder.exists() and not folder.is_dir():
        raise KitError(f"{folder} is a file; name a folder for the synthetic data")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STAMP).is_file():
        raise KitError(
            f"{folder} holds something else than synthetic data, which is left alone; "
            "name a new or an empty folder"
        )
    files.make_folder(folder)
    for name in _WRITTEN:
        path = folder / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise files.cannot_write(path, error) from error
    return folder


def _stamp(seed: int, images: int, size: tuple[int, int], complete: bool) -> dict:
    return {"version": VERSION, "seed": seed, "images": images, "size": list(size), "complete": complete}


def _write_annotated(
    folder: Path, table: Path, split: str, categories: list[str], seed: int, size: tuple[int, int]
) -> list[str]:
    """Write images and the table of their cells, sorted by id; the ids."""
    rows: dict[str, list[list]] = {}
    for index, category in enumerate(categories):
        name = frame_id(seed, split, index)
        picture, cells = frame(category, int(name, 16), size)
        _write_png(folder / f"{name}.png", picture)
        taken = asdict(exposure(category, split, categories[:index].count(category)))
        rows[name] = [
            [name, rle.to_text(cell.mask), size[1], size[0], category, *taken.values()] for cell in cells
        ]
    ids = sorted(rows)
    write_table(table, ANNOTATION_COLUMNS, (row for name in ids for row in rows[name]))
    return ids


def _write_unlabelled(folder: Path, categories: list[str], seed: int, size: tuple[int, int]) -> None:
    for index, category in enumerate(categories):
        picture, _ = frame(category, int(frame_id(seed, "unlabelled", index), 16), size)
        taken = exposure(category, "unlabelled", categories[:index].count(category))
        _write_png(folder / taken.file_name, picture)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    with files.atomic(path) as temporary:
        Image.fromarray(picture).save(temporary)


def write_table(path: Path, columns: Iterable[str], rows: Iterable[list]) -> int:
    """Write a CSV file row by row; the number of rows below its head."""
    written = 0
    with files.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            written += 1
    return written
