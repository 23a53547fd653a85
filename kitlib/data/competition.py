"""The folder of the competition "Sartorius - Cell Instance Segmentation" and its three sets of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kitlib import offline
from kitlib.data import tables
from kitlib.data.images import check_size, first_few, image_files, whole_size
from kitlib.errors import KitError, shortened
from kitlib.records import UNTYPED, Frame

FOLDER = offline.COMPETITION
LIVECELL = "LIVECell_dataset_2021"
"""The folder in it that holds LIVECell."""
CATEGORIES = ("astro", "cort", "shsy5y")
COLUMNS = offline.TABLES["train.csv"]
"""What train.csv must have; the other columns may be blank or absent."""

_TRUTH = "test_truth.csv"
_SIZE = (520, 704)
"""(height, width) of every image of the competition."""

_DATE = re.compile(r"_\d{4}-\d{2}-\d{2}_\d{2}h\d{2}m\d{2}s(?=_|$)")
_PLATE = re.compile(r"([^_]+)_.*_(Vessel-\d+)_")


def locate(data: Path | str) -> Path:
    """The competition's folder: ``data`` itself, or the folder of that name in it.

    Raises:
        KitError: neither holds ``train.csv``, ``train/`` or ``test/``.
    """
    data = Path(data)
    for root in (data, data / FOLDER):
        if any((root / name).exists() for name in ("train.csv", "train", "test")):
            return root
    state = f"holds no train.csv, train/ or test/, nor {FOLDER}/" if data.is_dir() else "is not a folder"
    raise KitError(f"{data} {state}; point --data at the unpacked competition data")


def labelled(data: Path | str) -> list[Frame]:
    """The images of ``train/`` with the cells of ``train.csv``; ``group`` is the ``sample_id`` where given.

    Raises:
        KitError: a missing file, folder or column, a bad annotation, an id without an image, an image without
            rows, a truncated image, or a stated size that is not the image's.
    """
    root = locate(data)
    path = root / "train.csv"
    _check_columns(path)
    frames, images = tables.read_cells(path), image_files(root / "train")
    _check_types(frames, path)
    bare = sorted(images.keys() - {frame.id for frame in frames})
    if bare:
        raise KitError(
            f"{path} has no row for {len(bare)} of the images in {root / 'train'}: {first_few(bare)}; "
            "add their rows (one with an empty annotation where there is no cell), or take the images out"
        )
    return _with_images(frames, images, path, root / "train")


def unlabelled(data: Path | str, say: Callable[[str], None] = print) -> list[Frame]:
    """The images of ``train_semi_supervised/`` that can be read, without cells; there may be none.

    File names such as ``cort[density]_B2-1_Vessel-401_2020-05-11_11h30m00s_Ph_2.png`` begin with the cell
    type and, without the date, are the ``sample_id`` of ``train.csv``: they give ``category`` and ``group``.
    Other names give None.

    Args:
        data: the competition's folder, or the folder that holds it.
        say: called with a sentence for each image that is left out because it cannot be read, and with one
            where no image is left: only pseudo labels need these images.
    """
    folder = locate(data) / "train_semi_supervised"
    frames = []
    for name, path in (image_files(folder) if folder.is_dir() else {}).items():
        try:
            size = whole_size(path)
        except KitError as error:
            say(f"left out: {error}")
        else:
            frames.append(Frame(name, path, *size, category=category_of(name), group=sample_of(name)))
    if not frames:
        say(f"{folder} holds no image that can be read: there will be no pseudo labels")
    return frames


def test(data: Path | str) -> list[Frame]:
    """The images of ``test/``, without cells.

    Raises:
        KitError: there is none, one is truncated, or ``sample_submission.csv`` asks for an image that is not
            there.
    """
    root = locate(data)
    images = _test_images(root)
    frames = [Frame(name, path, *whole_size(path)) for name, path in images.items()]
    for name, row in _missing(root, images).items():
        raise KitError(
            f"{root / offline.SAMPLE} row {row} asks for {shortened(name)}, but "
            f"{root / 'test'} holds no such image; copy or download it again"
        )
    return frames


def submitted(data: Path | str) -> list[Frame]:
    """The images that a submission must have rows for: those of ``test``, in whatever state they are.

    An image that cannot be read, or that is asked for but missing, is given the competition's size, and no
    cells are predicted in it.

    Raises:
        KitError: there is none.
    """
    root = locate(data)
    images = _test_images(root)
    found = [Frame(name, path, *_size(path)) for name, path in images.items()]
    return found + [Frame(name, None, *_SIZE) for name in _missing(root, images)]


def _test_images(root: Path) -> dict[str, Path]:
    images = offline.test_images(root)
    if not images:
        if not (root / "test").is_dir():
            raise KitError(f"{root / 'test'} is not a folder; check the path, or download the data again")
        raise KitError(f"{root / 'test'} holds no images; copy or download them again")
    return images


def _missing(root: Path, images: dict[str, Path]) -> dict[str, int]:
    """The images that the sample submission asks for and that are not among ``images``, with their row."""
    return {name: row for name, row in offline.asked_ids(root).items() if name not in images}


def _size(path: Path) -> tuple[int, int]:
    try:
        return whole_size(path)
    except KitError:
        return _SIZE


def has_truth(data: Path | str) -> bool:
    """Whether the true cells of the test images lie in the competition's folder (synthetic data)."""
    return (Path(data) / _TRUTH).is_file()


def truth(data: Path | str) -> list[Frame] | None:
    """The test images with their true cells, if there is a ``test_truth.csv`` (synthetic data); else None."""
    root = locate(data)
    path = root / _TRUTH
    if not path.is_file():
        return None
    return _with_images(tables.read_cells(path), offline.test_images(root), path, root / "test")


def category_of(name: str) -> str | None:
    """The cell type that a file name begins with ("astros[cereb]_..." is astro), or None."""
    return next((category for category in CATEGORIES if name.startswith(category)), None)


def sample_of(name: str) -> str | None:
    """The sample that a dated file name contains (type, plate, well, vessel and position), or None."""
    sample, found = _DATE.subn("", name)
    return sample if found else None


def plate_of(name: str) -> str | None:
    """The plate in the name of a sample or an image, such as "cort[density] Vessel-401", or None."""
    found = _PLATE.match(name)
    return " ".join(found.groups()) if found else None


def day_of(name: str) -> str | None:
    """The day in the name of an image, such as "2020-05-11", or None."""
    found = _DATE.search(name)
    return found[0][1:11] if found else None


def _with_images(frames: list[Frame], images: dict[str, Path], table: Path, folder: Path) -> list[Frame]:
    """The frames with the paths of their images, which must exist and have the stated size."""
    for frame in frames:
        if frame.id not in images:
            raise KitError(
                f"{_where(table, frame.id)} has no image {shortened(frame.id)}.png in {folder}; "
                "copy it there, or delete the id's rows"
            )
        if whole_size(images[frame.id]) != (frame.height, frame.width):
            check_size(images[frame.id], frame.height, frame.width, _where(table, frame.id))
    return [replace(frame, path=images[frame.id]) for frame in frames]


def _check_columns(path: Path) -> None:
    if not path.is_file():
        raise KitError(f"{path} does not exist; copy or download it from the competition's data page")
    columns = tables.column_names(path)
    lacks = [name for name in COLUMNS if name not in columns]
    if lacks:
        raise KitError(
            f"{path} has no column {first_few(lacks)} (it has: "
            f"{shortened(', '.join(columns) or 'nothing')}); add it, or download the table again"
        )


def _check_types(frames: list[Frame], path: Path) -> None:
    """Refuse cells without a type, which ``read_cells`` calls ``UNTYPED``."""
    if any(cell.category == UNTYPED for frame in frames for cell in frame.cells):
        for row, (name, category) in _rows(path, "id", "cell_type"):
            if not category.strip():
                raise KitError(
                    f"{path} row {row} (id {shortened(name)}): cell_type is blank; "
                    f"write {', '.join(CATEGORIES)}"
                )


def _where(table: Path, frame_id: str) -> str:
    row = next(row for row, (name,) in _rows(table, "id") if name == frame_id)
    return f"{table} row {row} (id {shortened(frame_id)})"


def _rows(table: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """Row numbers, the header being row 1, and the values of some columns; read only to name a bad row."""
    lines = tables.read_rows(table)
    header = [name.strip() for name in next(lines, [])]
    if not set(columns) <= set(header):
        raise KitError(f"{table} has no column {first_few(set(columns) - set(header))}; download it again")
    places = [header.index(name) for name in columns]
    for number, line in enumerate(lines, 2):
        if line:
            yield number, [line[place] for place in places]
