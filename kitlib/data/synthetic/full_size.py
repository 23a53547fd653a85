"""A competition folder with the published numbers of files, rows and faults, from few drawn frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kitlib import files
from kitlib.data.synthetic import livecell
from kitlib.data.synthetic.cultures import TEST_IMAGES, TYPES, UNLABELLED, apportion, scaled
from kitlib.data.synthetic.drawings import Drawings, LinkedImages, Shown
from kitlib.data.synthetic.folder import is_complete, stamped, write_table
from kitlib.data.synthetic.frames import check, exposure, frame_id
from kitlib.data.tables import ANNOTATION_COLUMNS
from kitlib.errors import KitError

_VERSION = 1
"""Of the drawing; a folder of another version is drawn again."""

_SIZE = (520, 704)
"""Height and width of the published images, in pixels."""


def ensure(
    folder: Path | str,
    seed: int = 0,
    share: float = 1.0,
    size: tuple[int, int] = _SIZE,
    say: Callable[[str], None] = print,
) -> Path:
    """``write``, unless the folder holds the whole of that data set already."""
    if is_complete(Path(folder), _settings(seed, share, size)):
        return Path(folder)
    return write(folder, seed, share, size, say)


def write(
    folder: Path | str,
    seed: int = 0,
    share: float = 1.0,
    size: tuple[int, int] = _SIZE,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a folder like the competition's: as many images, cells and faults as were published.

    A few frames of each cell type and line are drawn. All images are hard links to them and to their
    mirror images, each with another choice of annotated cells. ``test_truth.csv`` has the cells of the
    test images. The same arguments give the same bytes.

    Args:
        folder: is made; one that an earlier call made is written anew.
        seed: draws everything.
        share: of the published numbers, above 0 and at most 1; there is at least one of everything.
        size: height and width of every image, in pixels; the cells of an image follow its area.
        say: prints a line of progress.

    Raises:
        KitError: a bad argument, a folder that holds something else, or one that cannot be written.
    """
    check(seed, size)
    if not 0 < share <= 1:
        raise KitError(f"a share of {share} of the published data cannot be made; give from above 0 to 1")
    folder = Path(folder)
    with stamped(folder, _settings(seed, share, size)):
        _write_competition(folder, seed, share, size, say)
        livecell.write(folder / "LIVECell_dataset_2021", seed, share, size, say)
    return folder


def _settings(seed: int, share: float, size: tuple[int, int]) -> dict[str, Any]:
    return {"like": "competition", "version": _VERSION, "seed": seed, "share": share, "size": list(size)}


def _write_competition(
    folder: Path, seed: int, share: float, size: tuple[int, int], say: Callable[[str], None]
) -> None:
    rng = np.random.default_rng(int(frame_id(seed, "full size"), 16))
    drawings = {name: Drawings(name, published, size, rng) for name, published in TYPES.items()}
    say(f"frames of {len(TYPES)} cell types drawn")
    images, weights = LinkedImages(), {name: published.images for name, published in TYPES.items()}
    train = {name: scaled(number, share) for name, number in weights.items()}
    test = apportion(max(len(TYPES), scaled(TEST_IMAGES, share)), weights)
    _write_annotated(folder, "train", "train.csv", _frames(drawings, train, "train", seed, rng), images, say)
    frames = _frames(drawings, test, "test", seed, rng)
    _write_annotated(folder, "test", "test_truth.csv", frames, images, say)
    write_table(
        folder / "sample_submission.csv", ("id", "predicted"), ([name, ""] for name in sorted(frames))
    )
    _write_unlabelled(folder / "train_semi_supervised", drawings, share, rng, images, say)


_Frames = dict[str, tuple[str, int, Shown]]
"""By id: the type, the number among the images of that type, and the drawing with its annotated cells."""


def _frames(
    drawings: dict[str, Drawings], images: dict[str, int], split: str, seed: int, rng: np.random.Generator
) -> _Frames:
    return {
        frame_id(seed, "full size", split, category, index): (category, index, shown)
        for category, number in images.items()
        for index, shown in enumerate(drawings[category].show(number, rng))
    }


def _write_annotated(
    folder: Path, split: str, table: str, frames: _Frames, images: LinkedImages, say: Callable[[str], None]
) -> None:
    """Write images and the table of their cells, sorted by id."""
    files.make_folder(folder / split)
    for name, (_, _, shown) in frames.items():
        images.add(folder / split / f"{name}.png", shown.drawing)
    rows = write_table(folder / table, ANNOTATION_COLUMNS, _rows(split, frames))
    say(f"{table}: {len(frames):,} images, {rows:,} cells")


def _rows(split: str, frames: _Frames) -> Iterator[list]:
    for name, (category, index, shown) in sorted(frames.items()):
        height, width = shown.drawing.pixels.shape
        taken = exposure(category, split, index)
        when = [taken.plate_time, taken.sample_date, taken.sample_id, taken.elapsed_timedelta]
        for cell in shown.cells:
            yield [name, shown.drawing.texts[cell], width, height, category, *when]


def _write_unlabelled(
    folder: Path,
    drawings: dict[str, Drawings],
    share: float,
    rng: np.random.Generator,
    images: LinkedImages,
    say: Callable[[str], None],
) -> None:
    files.make_folder(folder)
    for category, plates in UNLABELLED.items():
        counts = {plate: scaled(number, share) for plate, number in plates.items()}
        plate_of = [plate for plate, number in counts.items() for _ in range(number)]
        shown = drawings[category].show(len(plate_of), rng)
        for index, (plate, image) in enumerate(zip(plate_of, shown, strict=True)):
            taken = exposure(category, "unlabelled", index)
            place = taken.sample_id.partition("_")[2]
            images.add(folder / replace(taken, sample_id=f"{plate}_{place}").file_name, image.drawing)
    say(f"{folder.name}: {sum(1 for _ in folder.iterdir()):,} images")
