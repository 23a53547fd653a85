"""A complete data folder in the competition's layout, drawn from a seed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kitlib import files
from kitlib.data.synthetic import livecell
from kitlib.data.synthetic.cultures import TYPES, apportion
from kitlib.data.synthetic.frames import check, exposure, frame, frame_id
from kitlib.data.tables import ANNOTATION_COLUMNS
from kitlib.errors import KitError
from kitlib.masks import rle

STAMP = "synthetic.json"
_VERSION = 1  # of the drawing; a folder of another version is drawn again
_LEAST_OF_A_TYPE = 6  # labelled images, where there are enough of them
_WRITTEN = (
    *("train.csv", "test_truth.csv", "sample_submission.csv"),
    *("train", "test", "train_semi_supervised", "LIVECell_dataset_2021"),
)


def ensure(folder: Path | str, seed: int = 0, images: int = 24, size: tuple[int, int] = (256, 256)) -> Path:
    """``write``, unless the folder holds the whole of that data set already."""
    if is_complete(Path(folder), _settings(seed, images, size)):
        return Path(folder)
    return write(folder, seed, images, size)


def write(folder: Path | str, seed: int = 0, images: int = 24, size: tuple[int, int] = (256, 256)) -> Path:
    """Draw a data set and write it in the competition's layout. The same arguments give the same bytes.

    ``test_truth.csv`` has the cells of the test images, in the columns of ``train.csv``.

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
    folder = Path(folder)
    train = [category for category, count in images_per_type(images).items() for _ in range(count)]
    # The types alternate.
    others = [list(TYPES)[index % len(TYPES)] for index in range(max(3, images * 3 // 8))]
    with stamped(folder, _settings(seed, images, size)):
        _write_annotated(folder / "train", folder / "train.csv", "train", train, seed, size)
        ids = _write_annotated(folder / "test", folder / "test_truth.csv", "test", others, seed, size)
        write_table(folder / "sample_submission.csv", ("id", "predicted"), ([name, ""] for name in ids))
        _write_unlabelled(folder / "train_semi_supervised", others, seed, size)
        for split, count in {"train": max(3, images // 2), "val": images // 8, "test": images // 8}.items():
            livecell.write_split(folder / "LIVECell_dataset_2021", split, seed, max(1, count), size)
    return folder


def _settings(seed: int, images: int, size: tuple[int, int]) -> dict[str, Any]:
    return {"version": _VERSION, "seed": seed, "images": images, "size": list(size)}


def images_per_type(images: int) -> dict[str, int]:
    """How many of ``images`` show each type: as in the competition, but at least 6 where they suffice."""
    labelled = sum(published.images for published in TYPES.values())
    shares = {category: published.images / labelled for category, published in TYPES.items()}
    return apportion(images, shares, _LEAST_OF_A_TYPE)


def is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds a whole data set that was written with these settings."""
    stamp = folder / STAMP
    return stamp.is_file() and files.read_json(stamp) == {**settings, "complete": True}


@contextmanager
def stamped(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Clear ``folder`` for a data set, and mark it as complete at the end of the block.

    Raises:
        KitError: the folder holds something else than synthetic data, or cannot be written.
    """
    _clear(folder)
    files.write_json(folder / STAMP, {**settings, "complete": False})
    yield
    files.write_json(folder / STAMP, {**settings, "complete": True})


def _clear(folder: Path) -> None:
    """Make the folder; what an earlier data set left in it is deleted, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise KitError(f"{folder} is a file; name a folder for the synthetic data")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STAMP).is_file():
        raise KitError(f"{folder} holds something else than synthetic data; name a new or an empty folder")
    files.make_folder(folder)
    for name in _WRITTEN:
        path = folder / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise files.cannot_write(path, error) from error


def _write_annotated(
    folder: Path, table: Path, split: str, categories: list[str], seed: int, size: tuple[int, int]
) -> list[str]:
    """Write images and the table of their cells, sorted by id, and return the ids."""
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
    """Write a CSV file row by row, and return the number of its rows."""
    written = 0
    with files.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            written += 1
    return written
