"""CSV tables with one row a cell: annotations (train.csv), predictions.csv and submission.csv.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import gc
import gzip
import math
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
PREDICTION_COLUMNS = ("id", "cell_type", "score", "mask_score", "agreement", "width", "height", "predicted")
Table = dict[str, Sequence[str]]  # columns by name
Size = tuple[int, int]  # height, width
#: The size of every image of the competition: height, width.
FRAME_SIZE = (520, 704)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Records by the ten thousand make no cycles, yet Python's collector would look for some many times."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_at_rest()
def read_cells(path: Path | str, sizes: Mapping[str, tuple[int, int]] | None = None) -> list[Frame]:
    """Read frames and their cells from a table, in the order in which the ids first appear.

    The masks stand in column ``annotation`` (train.csv) or ``predicted`` (predictions and submissions); a row
    whose mask is empty names a frame without cells. ``cell_type``, ``score``, ``mask_score``,
    ``agreement`` and ``sample_id`` (the frame's group) are read where there are such columns.

    Args:
        path: .csv or .csv.gz.
        sizes: height and width by id, for a table without the columns ``width`` and ``height``;
            an id that is not in it has the competition's 520 x 704.

    Raises:
        KitError: file or column missing, or a bad row, which is named with its number, id and the mend.
    """
    table = _read(path)
    mask = _mask_column(path, table)
    frame_sizes = _sizes(path, table, sizes or {})
    cells: dict[str, list[Cell]] = {frame_id: [] for frame_id in frame_sizes}
    for frame_id, cell in _cells(path, table, mask, frame_sizes):
        cells[frame_id].append(cell)
    groups = dict(zip(table["id"], _texts(table, "sample_id"), strict=True))
    return [
        Frame(frame_id, None, *frame_sizes[frame_id], tuple(found), _majority(found), groups[frame_id])
        for frame_id, found in cells.items()
    ]


def write_annotations(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write frames as the competition's train.csv; columns that a Frame does not know stay blank."""
    rows = (
        [f.id, text, f.width, f.height, c.category, "", "", f.group or "", ""]
        for f in frames
        for c, text in zip(f.cells, _annotations(f), strict=True)
    )
    return _write(path, ANNOTATION_COLUMNS, rows)


def write_predictions(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write predicted frames as predictions.csv; a frame without cells keeps one row with an empty mask."""
    return _write(path, PREDICTION_COLUMNS, (row for frame in frames for row in _prediction_rows(frame)))


def _prediction_rows(frame: Frame) -> Iterator[list]:
    size = [frame.width, frame.height]
    for c, text in zip(frame.cells, _annotations(frame), strict=True):
        numbers = [_round(value) for value in (c.score, c.mask_score, c.agreement)]
        yield [frame.id, c.category, *numbers, *size, text]
    if not frame.cells:
        yield [frame.id, "", "", "", "", *size, ""]


def _annotations(frame: Frame) -> list[str]:
    return rle.to_texts([cell.mask for cell in frame.cells])


def _round(value: float | None) -> float | str:
    return "" if value is None else round(float(value), 6)


def _write(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence]) -> Path:
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return Path(path)


@contextmanager
def open_text(path: Path | str) -> Iterator[TextIO]:
    """A CSV table's text, unpacked where it is gzipped; what is wrong with it is a KitError."""
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


def _read(path: Path | str) -> Table:
    """The whole table by columns, which 40,000 rows make several times faster to read than by rows."""
    with open_text(path) as lines:
        reader = csv.reader(lines)
        names = [name.strip() for name in next(reader, [])]
        rows = list(reader)
    if set(map(len, rows)) - {len(names)}:
        rows = list(_whole_rows(path, rows, len(names)))
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())


def _whole_rows(path: Path | str, rows: list[list[str]], length: int) -> Iterator[list[str]]:
    for place, row in enumerate(rows):
        if len(row) == length:
            yield row
        elif any(map(any, rows[place:])):  # blank lines are welcome at the end
            problem = f"row {place + 2} has {len(row)} fields instead of {length}"
            raise KitError(f"{path} {problem}; the file may be cut short: mend the row or copy it again")


def _mask_column(path: Path | str, table: Table) -> str:
    if "id" not in table:
        raise KitError(f"{path} has no column 'id' (it has: {', '.join(table) or 'nothing'}); add it")
    for name in ("annotation", "predicted"):
        if name in table:
            return name
    raise KitError(f"{path} has no column 'annotation' or 'predicted' (it has: {', '.join(table)}); add one")


def _sizes(path: Path | str, table: Table, known: Mapping[str, Size]) -> dict[str, Size]:
    """Height and width of each id, in order of appearance."""
    if "" in table["id"]:
        number = table["id"].index("") + 2
        raise KitError(f"{path} row {number}: the id is empty; write the image's name without extension")
    if "width" not in table or "height" not in table:
        return {frame_id: known.get(frame_id, FRAME_SIZE) for frame_id in table["id"]}
    sizes: dict[str, Size] = {}
    rows = list(zip(table["id"], table["height"], table["width"], strict=True))
    for row in dict.fromkeys(rows):  # one or a few for each image, not one for each cell
        frame_id, height, width = row
        try:
            size = int(height), int(width)
        except ValueError:
            size = (0, 0)
        if min(size) < 1 or sizes.setdefault(frame_id, size) != size:
            raise KitError(
                f"{path} row {rows.index(row) + 2} (id {frame_id}): width '{width}' and height '{height}' "
                "must be the image's size in pixels, alike in all its rows"
            )
    return sizes


def _cells(
    path: Path | str, table: Table, mask: str, sizes: Mapping[str, Size]
) -> Iterator[tuple[str, Cell]]:
    """The id and the cell of each row that has a mask."""
    chosen = [place for place, text in enumerate(table[mask]) if text and not text.isspace()]
    ids, texts = table["id"], table[mask]
    frame_sizes = [sizes[ids[place]] for place in chosen]
    heights, widths = zip(*frame_sizes, strict=True) if chosen else ((), ())
    try:
        masks = rle.parse_all([texts[place] for place in chosen], heights, widths)
    except rle.RleError as error:
        place = chosen[error.index]
        raise KitError(f"{path} row {place + 2} (id {ids[place]}): {error}") from None
    categories = _texts(table, "cell_type")
    numbers = [_scores(path, table, name) for name in ("score", "mask_score", "agreement")]
    for place, found in zip(chosen, masks, strict=True):
        yield ids[place], Cell(found, categories[place] or "cell", *(n[place] for n in numbers))


def _texts(table: Table, name: str) -> Sequence[str | None]:
    """A column's texts without blanks around them; None where there is nothing."""
    column = table.get(name)
    return [text.strip() or None for text in column] if column else [None] * len(table["id"])


def _scores(path: Path | str, table: Table, name: str) -> Sequence[float | None]:
    scores = []
    for place, text in enumerate(_texts(table, name)):
        try:
            score = None if text is None else float(text)
        except ValueError:
            score = math.nan
        if score is not None and not 0 <= score <= 1:
            raise KitError(f"{path} row {place + 2}: {name} '{text}' is not a number from 0 to 1; write one")
        scores.append(score)
    return scores


def _majority(cells: list[Cell]) -> str | None:
    """The type that most cells have; the first by name of equals."""
    counts = Counter(cell.category for cell in cells)
    return min(counts, key=lambda c: (-counts[c], c)) if counts else None
