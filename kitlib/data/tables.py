"""CSV tables with one row a cell: annotations (train.csv), predictions.csv and submission.csv.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import gc
import gzip
import itertools
import math
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kitlib import files
from kitlib.errors import KitError, shortened
from kitlib.masks import rle
from kitlib.records import UNTYPED, Cell, Frame, voted_category

#: Columns of the competition's train.csv.
ANNOTATION_COLUMNS = (
    *("id", "annotation", "width", "height", "cell_type"),
    *("plate_time", "sample_date", "sample_id", "elapsed_timedelta"),
)
#: Columns of predictions.csv: one row an instance, before post-processing.
_PREDICTION_COLUMNS = ("id", "cell_type", "score", "mask_score", "agreement", "width", "height", "predicted")
_Columns = dict[str, Sequence[str]]
#: Height, width.
Size = tuple[int, int]
# Rows that are parsed together: enough to be fast, few enough to take little memory.
ROWS_AT_ONCE = 1 << 14
SCORE_DECIMALS = 6
"""Decimals of the scores in a table; predictions are rounded to as many from the start."""


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Tens of thousands of records make no cycles, yet Python would search them for cycles many times."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class ScatteredRows(KitError):
    """The rows of one image do not stand together."""


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a table."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def read_cells(path: Path | str, sizes: Mapping[str, Size] | None = None) -> list[Frame]:
    """Read frames and their cells from a table, in the order in which the ids first appear.

    The masks stand in column ``annotation`` (train.csv) or ``predicted`` (predictions and submissions); a row
    whose mask is empty names a frame without cells. ``cell_type``, ``score``, ``mask_score``, ``agreement``
    and ``sample_id`` (the frame's group) are read where there are such columns. A frame's type is the one
    that its cells vote for.

    Args:
        path: .csv or .csv.gz.
        sizes: height and width by id, for a table without the columns ``width`` and ``height``.

    Raises:
        KitError: the file or a column is missing, the size of an image is not known, or a row is bad; the
            error gives the row's number, its id and the remedy.
    """
    images: dict[str, _Image] = {}
    with _without_garbage_collection():
        for block in _blocks(path, sizes or {}):
            for name, image in block.items():
                if name in images:
                    images[name].extend(image)
                else:
                    images[name] = image
        return [image.frame(name) for name, image in images.items()]


def iter_cells(path: Path | str, sizes: Mapping[str, Size] | None = None) -> Iterator[Frame]:
    """The frames of ``read_cells`` one after the other, in the memory of a few thousand rows.

    Raises:
        ScatteredRows: the rows of an image do not stand together; ``read_cells`` reads such a table.
        KitError: as ``read_cells``.
    """
    begun: set[str] = set()
    name, image = "", _Image((0, 0))
    for block in _blocks(path, sizes or {}):
        for next_name, rows in block.items():
            if next_name == name:
                image.extend(rows)
                continue
            if next_name in begun:
                raise ScatteredRows(f"{path}: the rows of image {shortened(next_name)} do not stand together")
            begun.add(next_name)
            if name:
                yield image.frame(name)
            name, image = next_name, rows
    if name:
        yield image.frame(name)


def read_sizes(path: Path | str) -> dict[str, Size]:
    """Height and width of each id of a table, as ``read_cells`` takes them for another table.

    Raises:
        KitError: as ``read_cells``.
    """
    sizes: dict[str, Size] = {}
    for block in _tables(path):
        _add_sizes(block, sizes, {})
    return sizes


def has_sizes(path: Path | str) -> bool:
    """Whether a table gives the sizes of its images."""
    return {"width", "height"} <= set(column_names(path))


def column_names(path: Path | str) -> list[str]:
    """The names of a table's columns, without blanks around them; none of an empty file.

    Raises:
        KitError: as ``read_rows``.
    """
    return [name.strip() for name in next(read_rows(path), [])]


def read_rows(path: Path | str) -> Iterator[list[str]]:
    """The rows of a CSV table as they stand in the file, the header first; a blank line is an empty row.

    Args:
        path: .csv or .csv.gz, UTF-8.

    Raises:
        KitError: the file is missing, damaged, or not a CSV table.
    """
    # A mask may be longer than csv's default of 128 KiB a field.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    opener = gzip.open if str(path).endswith(".gz") else open
    number = 1
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as lines:
            # Strict: a quote that never ends is an error, also in the last row.
            for row in csv.reader(lines, strict=True):
                yield row
                number += 1
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except csv.Error as error:
        raise KitError(
            f"{path} row {number} cannot be read as CSV ({error}); correct it or copy the file again"
        ) from error
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise KitError(
            f"{path} cannot be read as a CSV table ({error}); copy or download it again"
        ) from error


@dataclass
class _Image:
    """The size, the group and the cells of one image, as far as its rows have been read."""

    size: Size
    group: str | None = None
    cells: list[Cell] = field(default_factory=list)

    def extend(self, further: _Image) -> None:
        self.group = further.group
        self.cells += further.cells

    def frame(self, name: str) -> Frame:
        category = voted_category((cell.category, cell.confidence) for cell in self.cells)
        return Frame(name, None, *self.size, tuple(self.cells), category, self.group)


def write_annotations(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write frames as the competition's train.csv; columns that a Frame does not know stay blank.

    A frame without cells has one row with an empty annotation.
    """
    return _write(path, ANNOTATION_COLUMNS, (row for frame in frames for row in _annotation_rows(frame)))


def _annotation_rows(frame: Frame) -> Iterator[list]:
    categories = [cell.category for cell in frame.cells] or [frame.category or ""]
    for category, text in zip(categories, _annotations(frame) or [""], strict=True):
        yield [frame.id, text, frame.width, frame.height, category, "", "", frame.group or "", ""]


def write_predictions(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write predicted frames as predictions.csv; a frame without cells has one row with an empty mask."""
    return _write(path, _PREDICTION_COLUMNS, (row for frame in frames for row in _prediction_rows(frame)))


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
    return "" if value is None else round(float(value), SCORE_DECIMALS)


def _write(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence]) -> Path:
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return Path(path)


@dataclass(frozen=True)
class _Table:
    """Some thousand rows of a table, by columns: several times faster than row by row.

    Attributes:
        start: the number of the first of these rows.
    """

    path: Path | str
    start: int
    columns: _Columns

    def texts(self, name: str) -> Sequence[str | None]:
        """A column's texts without blanks around them; None where there is nothing."""
        column = self.columns.get(name)
        if column is None:
            return [None] * len(self.columns["id"])
        return [text.strip() or None for text in column]


def _blocks(path: Path | str, known: Mapping[str, Size]) -> Iterator[dict[str, _Image]]:
    """The images of some thousand rows at a time, in the order in which they first appear in these rows.

    Args:
        path: the table.
        known: height and width by id, for a table without columns for them.
    """
    sizes: dict[str, Size] = {}
    for table in _tables(path):
        yield _images(table, sizes, known)


@_without_garbage_collection()
def _images(table: _Table, sizes: dict[str, Size], known: Mapping[str, Size]) -> dict[str, _Image]:
    mask = _mask_column(table)
    _add_sizes(table, sizes, known)
    groups = dict(zip(table.columns["id"], table.texts("sample_id"), strict=True))
    images = {name: _Image(sizes[name], group) for name, group in groups.items()}
    for name, cell in _cells(table, mask, sizes):
        images[name].cells.append(cell)
    return images


def _tables(path: Path | str) -> Iterator[_Table]:
    """A table, some thousand rows at a time; a table without rows is given once, for its columns."""
    lines = read_rows(path)
    names = [name.strip() for name in next(lines, [])]
    rows, start = _whole_rows(path, lines, len(names)), 2
    while (block := _take(rows)) or start == 2:
        columns = zip(*block, strict=True) if block else ((),) * len(names)
        table = _Table(path, start, dict(zip(names, columns, strict=True)))
        if "id" not in table.columns:
            present = shortened(", ".join(names) or "nothing")
            raise KitError(f"{path} has no column 'id' (it has: {present}); add it")
        yield table
        start += ROWS_AT_ONCE


@_without_garbage_collection()
def _take(rows: Iterator[list[str]]) -> list[list[str]]:
    return list(itertools.islice(rows, ROWS_AT_ONCE))


def _whole_rows(path: Path | str, rows: Iterable[list[str]], length: int) -> Iterator[list[str]]:
    """The rows, all of ``length`` fields; blank lines are accepted at the end alone."""
    blank = None
    for number, row in enumerate(rows, start=2):
        if len(row) == length and blank is None:
            yield row
        elif any(row):
            which, fields = blank or (number, len(row))
            problem = f"row {which} has {fields} fields instead of {length}"
            raise KitError(
                f"{path} {problem}; the file may be cut short: correct the row or copy the file again"
            )
        else:
            blank = blank or (number, len(row))


def _mask_column(table: _Table) -> str:
    for name in ("annotation", "predicted"):
        if name in table.columns:
            return name
    names = shortened(", ".join(table.columns))
    raise KitError(f"{table.path} has no column 'annotation' or 'predicted' (it has: {names}); add one")


def _add_sizes(table: _Table, sizes: dict[str, Size], known: Mapping[str, Size]) -> None:
    """Put the height and width of the rows' ids into ``sizes``, in order of appearance.

    Args:
        table: the rows.
        sizes: where the sizes of these and of earlier rows are collected.
        known: height and width by id, for a table without columns for them.
    """
    path, ids = table.path, table.columns["id"]
    if "" in ids:
        number = ids.index("") + table.start
        raise KitError(f"{path} row {number}: the id is empty; write the image's name without extension")
    if "width" not in table.columns or "height" not in table.columns:
        lacking = next((name for name in ids if name not in known), None)
        if lacking is not None:
            raise KitError(
                f"{path} row {ids.index(lacking) + table.start} (id {shortened(lacking)}): the size of this "
                "image is unknown; add the columns 'width' and 'height', or remove the rows if there is none"
            )
        sizes.update({name: known[name] for name in ids})
        return
    rows = list(zip(ids, table.columns["height"], table.columns["width"], strict=True))
    # Without duplicates there are one or a few rows for each image, not one for each cell.
    for row in dict.fromkeys(rows):
        name, height, width = row
        try:
            size = int(height), int(width)
        except ValueError:
            size = (0, 0)
        if min(size) < 1 or sizes.setdefault(name, size) != size:
            raise KitError(
                f"{path} row {rows.index(row) + table.start} (id {shortened(name)}): width "
                f"'{shortened(width)}' and height '{shortened(height)}' must be "
                "the image's size in pixels, alike in all its rows"
            )


def _cells(table: _Table, mask: str, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Cell]]:
    """The id and the cell of each row that has a mask."""
    ids, texts = table.columns["id"], table.columns[mask]
    chosen = [place for place, text in enumerate(texts) if text and not text.isspace()]
    frame_sizes = [sizes[ids[place]] for place in chosen]
    heights, widths = zip(*frame_sizes, strict=True) if chosen else ((), ())
    try:
        masks = rle.parse_all([texts[place] for place in chosen], heights, widths)
    except rle.RleError as error:
        place = chosen[error.index]
        raise KitError(
            f"{table.path} row {place + table.start} (id {shortened(ids[place])}): {error}"
        ) from None
    categories = table.texts("cell_type")
    numbers = [_scores(table, name) for name in ("score", "mask_score", "agreement")]
    for place, found in zip(chosen, masks, strict=True):
        yield ids[place], Cell(found, categories[place] or UNTYPED, *(n[place] for n in numbers))


def _scores(table: _Table, name: str) -> Sequence[float | None]:
    scores = []
    for place, text in enumerate(table.texts(name)):
        try:
            score = None if text is None else float(text)
        except ValueError:
            score = math.nan
        if score is not None and not 0 <= score <= 1:
            row = place + table.start
            raise KitError(
                f"{table.path} row {row}: {name} '{shortened(text)}' is not a number from 0 to 1; write one"
            )
        scores.append(score)
    return scores
