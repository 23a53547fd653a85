"""Finding, before Kaggle does, all that is wrong with a submission."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitlib.data import competition, tables
from kitlib.errors import KitError, shortened
from kitlib.masks import text
from kitlib.masks.runs import Runs
from kitlib.offline import SUFFIXES
from kitlib.records import Frame

COLUMNS = ("id", "predicted")
_MOST_OVERLAPS = 3
"""Overlapping rows that are named of one row."""
_MIN_STEPS = 10
"""Steps from run to run without which the direction in which pixels were numbered is not clear."""


@dataclass(frozen=True)
class _Row:
    number: int
    id: str
    text: str


@dataclass
class _Image:
    """A test image and the rows that name it: those with a mask, and those without."""

    id: str
    height: int
    width: int
    rows: list[_Row] = field(default_factory=list)
    empty: list[_Row] = field(default_factory=list)
    named: bool = False


_Problem = tuple[int, str]
"""A row's number; what is wrong with the row and what to do."""


def check(path: Path | str, test: Path | str | Sequence[Frame], guess: bool = True) -> list[str]:
    """Everything wrong with a submission, as ``row N: what is wrong; what to do``; nothing if it is fine.

    Row N is the one that a spreadsheet shows: the header is row 1.

    Args:
        path: the submission.
        test: the competition folder, or the test frames (their ids and sizes count).
        guess: whether to name also masks that may be right but seem to be numbered down the columns.

    Raises:
        KitError: the file is not a readable table, or the folder holds no test images.
    """
    frames = competition.submitted(test) if isinstance(test, str | Path) else test
    images = {f.id: _Image(f.id, f.height, f.width) for f in frames}
    header, rows = _read(Path(path))
    if tuple(header) != COLUMNS:
        return [f"row 1: {_header_problem(header)}"]
    problems = list(_file_under(images, rows))
    for image in images.values():
        problems += _image_problems(image)
    problems += _column_major(images.values()) if guess else []
    missing = [
        f"image {i.id} has no row; add '{i.id},' (empty if nothing was found in it)"
        for i in images.values()
        if not i.named
    ]
    return [f"row {number}: {what}" for number, what in sorted(problems)] + missing


def disjoint(texts: Sequence[str]) -> bool:
    """Whether valid annotations of one image have no pixel in common."""
    numbers = np.fromstring(" ".join(texts), np.int64, sep=" ")
    order = np.argsort(numbers[0::2])
    starts, lengths = numbers[0::2][order], numbers[1::2][order]
    return bool((starts[1:] >= (starts + lengths)[:-1]).all())


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    rows = list(tables.read_rows(path))
    if not rows:
        raise KitError(f"{path} is empty; its first row must be '{','.join(COLUMNS)}'")
    return rows[0], rows[1:]


def _header_problem(header: list[str]) -> str:
    must, shown = f"they must be '{','.join(COLUMNS)}'", shortened(",".join(header))
    if header[1:] == list(COLUMNS):
        return f"the columns are '{shown}', {must}; write the table without its index (index=False)"
    return f"the columns are '{shown}'; {must}"


def _file_under(images: dict[str, _Image], rows: list[list[str]]) -> Iterable[_Problem]:
    """Sort the rows into their images; yield what is wrong with ids and with the number of fields."""
    unknown: dict[str, list[int]] = {}
    aliases: dict[str, str | None] = {}
    by_number = _by_number(images)
    for number, fields in enumerate(rows, start=2):
        if not fields:
            continue
        if len(fields) != len(COLUMNS):
            yield number, f"has {len(fields)} fields instead of {len(COLUMNS)}; write 'id,predicted', no more"
            continue
        given, text = fields
        image_id: str | None = given
        if given not in images:
            unknown.setdefault(given, []).append(number)
            image_id = aliases.setdefault(given, _meant(given, images, by_number))
        if image_id is not None:
            image = images[image_id]
            image.named = True
            (image.rows if text.strip() else image.empty).append(_Row(number, image_id, text))
    for name, places in unknown.items():
        others = f" (and {len(places) - 1} more rows)" if len(places) > 1 else ""
        yield places[0], _unknown_problem(name, aliases[name]) + others


def _meant(name: str, images: dict[str, _Image], numbers: dict[float, str | None]) -> str | None:
    """The test image that a wrong id stands for, if that is clear."""
    bare = name.strip()
    stem = bare[: -len(Path(bare).suffix)] if Path(bare).suffix.lower() in SUFFIXES else bare
    if stem in images:
        return stem
    number = _as_number(bare)
    return None if number is None else numbers.get(number)


def _by_number(images: Iterable[str]) -> dict[float, str | None]:
    """The ids that are numbers, by their number; None for a number that several ids have."""
    found: dict[float, str | None] = {}
    for name in images:
        number = _as_number(name)
        if number is not None:
            found[number] = None if number in found else name
    return found


def _as_number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def _unknown_problem(name: str, meant: str | None) -> str:
    shown = shortened(name)
    if meant is None:
        return f"'{shown}' is not a test image; delete it"
    if Path(name.strip()).suffix.lower() in SUFFIXES:
        return f"id '{shown}' has a file extension; write '{meant}'"
    if name.strip() == meant:
        return f"id '{shown}' has blanks around it; write '{meant}'"
    return f"id '{shown}' is '{meant}' turned into a number; read and write ids as text (dtype=str in pandas)"


def _image_problems(image: _Image) -> list[_Problem]:
    return _superfluous(image) + _bad_masks(image) + _overlaps(image)


def _superfluous(image: _Image) -> list[_Problem]:
    """Empty rows beside others; afterwards repeated rows are gone from the image."""
    surplus = image.empty if image.rows else image.empty[1:]
    problems = [(r.number, f"is empty but image {r.id} has other rows; delete it") for r in surplus]
    first: dict[str, _Row] = {}
    for row in image.rows:
        if first.setdefault(row.text, row) is not row:
            problems.append((row.number, f"repeats row {first[row.text].number}; delete one of them"))
    image.rows = list(first.values())
    return problems


def _bad_masks(image: _Image) -> list[_Problem]:
    """What is wrong with single annotations; afterwards the image holds the good ones only."""
    if _parse(image) is not None:
        return []
    found = [(row, text.problem(row.text, image.height, image.width)) for row in image.rows]
    image.rows = [row for row, what in found if what is None]
    return [(row.number, f"image {row.id}: {what}") for row, what in found if what is not None]


def _parse(image: _Image) -> Runs | None:
    number = len(image.rows)
    try:
        return text.read([r.text for r in image.rows], [image.height] * number, [image.width] * number)
    except text.RleError:
        return None


def _overlaps(image: _Image) -> list[_Problem]:
    """Rows with pixels that an earlier row of the image has; the first row that has a pixel is named."""
    rows, runs = image.rows, _parse(image)
    if runs is None or disjoint([r.text for r in rows]):
        return []
    problems = []
    for row, taken in zip(rows, _taken(runs), strict=True):
        for place, (earlier, pixels) in enumerate(taken[:_MOST_OVERLAPS]):
            others = len(taken) - _MOST_OVERLAPS if place == _MOST_OVERLAPS - 1 else 0
            more = f" (and {others} more rows)" if others > 0 else ""
            what = f"overlaps row {rows[earlier].number} of image {image.id} in {pixels} pixels"
            problems.append((row.number, f"{what}; give each pixel to one cell{more}"))
    return problems


def _taken(runs: Runs) -> Iterator[list[tuple[int, int]]]:
    """For each mask the earlier masks that have some of its pixels, and how many.

    A pixel counts for the first mask that has it.

    Masks are painted one after the other on the stretches of pixels between any two ends of runs: there are
    never more of them than twice the runs, however large the frame is.
    """
    edges = np.unique(np.concatenate([runs.starts, runs.ends]))
    sizes, owner = np.diff(edges), np.full(len(edges), -1)
    firsts, ends = np.searchsorted(edges, runs.starts), np.searchsorted(edges, runs.ends)
    for place, (a, b) in enumerate(itertools.pairwise(runs.bounds.tolist())):
        mine = _ranges(firsts[a:b], ends[a:b])
        before = owner[mine]
        taken = before >= 0
        owner[mine[~taken]] = place
        earlier, which = np.unique(before[taken], return_inverse=True)
        pixels = np.bincount(which, sizes[mine[taken]], len(earlier)).astype(np.int64)
        yield list(zip(earlier.tolist(), pixels.tolist(), strict=True))


def _ranges(firsts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The whole numbers of half-open ranges, one range after the other."""
    lengths = ends - firsts
    return np.repeat(firsts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _column_major(images: Iterable[_Image]) -> list[_Problem]:
    """Masks numbered down the columns: a cell's runs start a frame's height apart then, not its width."""
    width_apart = height_apart = 0
    first = None
    for image in images:
        if abs(image.width - image.height) < image.width / 8 or not image.rows:
            # In nearly square frames the steps of a slanted cell may be as long as either side.
            continue
        first = min(first or image.rows[0].number, image.rows[0].number)
        steps, near = _steps([r.text for r in image.rows]), abs(image.width - image.height) / 3
        width_apart += int((abs(steps - image.width) < near).sum())
        height_apart += int((abs(steps - image.height) < near).sum())
    if first is None or height_apart < _MIN_STEPS or height_apart <= 2 * width_apart:
        return []
    what = "the masks seem to be numbered down the columns; number pixels from left to right, then down"
    return [(first, what)]


def _steps(texts: Sequence[str]) -> NDArray[np.int64]:
    """From each run's start to the next one's, within each of the annotations."""
    starts = np.fromstring(" ".join(texts), np.int64, sep=" ")[0::2]
    ends = np.cumsum([len(text.split()) // 2 for text in texts])
    within = np.ones(len(starts), bool)
    within[ends - 1] = False
    return np.diff(starts)[within[:-1]]
