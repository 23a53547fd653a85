"""CSV tables with one row a cell: annotations (train.csv), predictions.csv and submission.csv.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kitlib import files, rle
from kitlib.errors import KitError
from kitlib.records import Cell, Frame

#: Columns of the competition's train.csv.
ANNOTATION_COLUMNS = (
    *("id", "annotation", "width", "height", "cell_type"),
    *("plate_time", "sample_date", "sample_id", "elapsed_timedelta"),
)
#: Columns of predictions.csv: one row an instance, before post-processing.
PREDICTION_COLUMNS = ("id", "cell_type", "score", "mask_score", "width", "height", "predicted")
#: The size of every image of the competition: height, width.
FRAME_SIZE = (520, 704)


def read_cells(path: Path | str, sizes: Mapping[str, tuple[int, int]] | None = None) -> list[Frame]:
    """Read frames and their cells from a table, in the order in which the ids first appear.

    The masks stand in column ``annotation`` (train.csv) or ``predicted`` (predictions and submissions); a row
    whose mask is empty names a frame without cells. ``cell_type``, ``score``, ``mask_score`` and
    ``sample_id`` (the frame's group) are read where there are such columns.

    Args:
        path: .csv or .csv.gz.
        sizes: height and width by id, for a table without the columns ``width`` and ``height``;
            an id that is not in it has the competition's 520 x 704.

    Raises:
        KitError: file or column missing, or a bad row, which is named with its number, id and the mend.
    """
    with _open(path) as lines:
        reader = csv.reader(lines)
        columns = {name.strip(): place for place, name in enumerate(next(reader, []))}
        mask = _mask_column(path, columns)
        rows = list(_whole_rows(path, reader, len(columns)))
    frame_sizes = _sizes(path, rows, columns, sizes or {})
    annotated = [(n, row) for n, row in enumerate(rows) if row[mask].strip()]
    ids = [row[columns["id"]] for _, row in annotated]
    try:
        masks = rle.parse_all(
            [row[mask] for _, row in annotated],
            [frame_sizes[i][0] for i in ids],
            [frame_sizes[i][1] for i in ids],
        )
    except rle.RleError as error:
        number = annotated[error.index][0]
        raise KitError(f"{path} row {number + 2} (id {ids[error.index]}): {error}") from None
    cells: dict[str, list[Cell]] = {frame_id: [] for frame_id in frame_sizes}
    for (number, row), found in zip(annotated, masks, strict=True):
        category = _text(row, columns, "cell_type") or "cell"
        where = f"{path} row {number + 2}"
        scores = (_score(row, columns, name, where) for name in ("score", "mask_score"))
        cells[row[columns["id"]]].append(Cell(found, category, *scores))
    groups = {row[columns["id"]]: _text(row, columns, "sample_id") for row in rows}
    return [
        Frame(frame_id, None, *frame_sizes[frame_id], tuple(found), _majority(found), groups[frame_id])
        for frame_id, found in cells.items()
    ]


def write_annotations(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write frames as the competition's train.csv; columns that a Frame does not know stay blank."""
    rows = (
        [f.id, rle.to_text(c.mask), f.width, f.height, c.category, "", "", f.group or "", ""]
        for f in frames
        for c in f.cells
    )
    return _write(path, ANNOTATION_COLUMNS, rows)


def write_predictions(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write predicted frames as predictions.csv; a frame without cells keeps one row with an empty mask."""
    return _write(path, PREDICTION_COLUMNS, (row for frame in frames for row in _prediction_rows(frame)))


def _prediction_rows(frame: Frame) -> Iterator[list]:
    size = [frame.width, frame.height]
    for c in frame.cells:
        yield [frame.id, c.category, _round(c.score), _round(c.mask_score), *size, rle.to_text(c.mask)]
    if not frame.cells:
        yield [frame.id, "", "", "", *size, ""]


def _round(value: float | None) -> float | str:
    return "" if value is None else round(float(value), 6)


def _write(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence]) -> Path:
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return Path(path)


@contextmanager
def _open(path: Path | str) -> Iterator[TextIO]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a mask may be longer than csv's 128 KiB
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as lines:
            yield lines
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise KitError(
            f"{path} cannot be read as a CSV table ({error}); copy or download it again"
        ) from error


def _mask_column(path: Path | str, columns: Mapping[str, int]) -> int:
    if "id" not in columns:
        raise KitError(f"{path} has no column 'id' (it has: {', '.join(columns) or 'nothing'}); add it")
    for name in ("annotation", "predicted"):
        if name in columns:
            return columns[name]
    raise KitError(
        f"{path} has no column 'annotation' or 'predicted' (it has: {', '.join(columns)}); add one"
    )


def _whole_rows(path: Path | str, reader: Iterator[list[str]], length: int) -> Iterator[list[str]]:
    for number, row in enumerate(reader, 2):
        if len(row) == length:
            yield row
        elif any(row) or any(any(later) for later in reader):  # blank lines are welcome at the end
            problem = f"row {number} has {len(row)} fields instead of {length}"
            raise KitError(f"{path} {problem}; the file may be cut short: mend the row or copy it again")


def _sizes(path: Path | str, rows: list[list[str]], columns: Mapping[str, int], known: Mapping) -> dict:
    """Height and width of each id, in order of appearance."""
    sizes: dict[str, tuple[int, int]] = {}
    in_table = "width" in columns and "height" in columns
    for number, row in enumerate(rows, 2):
        frame_id = row[columns["id"]]
        if not frame_id:
            raise KitError(f"{path} row {number}: the id is empty; write the image's name without extension")
        if not in_table:
            sizes.setdefault(frame_id, known.get(frame_id, FRAME_SIZE))
            continue
        try:
            size = int(row[columns["height"]]), int(row[columns["width"]])
        except ValueError:
            size = (0, 0)
        if min(size) < 1 or sizes.setdefault(frame_id, size) != size:
            raise KitError(
                f"{path} row {number} (id {frame_id}): width '{row[columns['width']]}' and height "
                f"'{row[columns['height']]}' must be the image's size in pixels, alike in all its rows"
            )
    return sizes


def _text(row: list[str], columns: Mapping[str, int], name: str) -> str | None:
    return (row[columns[name]].strip() or None) if name in columns else None


def _score(row: list[str], columns: Mapping[str, int], name: str, where: str) -> float | None:
    text = _text(row, columns, name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise KitError(f"{where}: {name} '{text}' is not a number; write one from 0 to 1") from None


def _majority(cells: list[Cell]) -> str | None:
    """The type that most cells have; the first by name of equals."""
    counts = Counter(cell.category for cell in cells)
    return min(counts, key=lambda c: (-counts[c], c)) if counts else None
