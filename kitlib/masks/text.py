"""The competition's annotations as text: "start length start length ...", starts from 1, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kitlib.errors import KitError
from kitlib.masks.runs import Runs

# No frame has more pixels than a number of so many digits can count.
_DIGITS = 18


class RleError(KitError):
    """A text that is not a valid annotation; ``index`` is its place among the texts read together."""

    def __init__(self, problem: str, index: int = 0) -> None:
        super().__init__(problem)
        self.index = index


def read(texts: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> Runs:
    """The runs that annotations name.

    Args:
        texts: N annotations.
        heights: the rows of each text's frame, (N,).
        widths: the columns of each text's frame, (N,).

    Raises:
        RleError: the first bad text: odd count, non-number, zero or negative length, out of range, unsorted
            or overlapping pairs.
    """
    if not len(texts):
        return Runs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    values, bounds = _numbers(texts)
    if values is None or np.any(np.diff(bounds) % 2) or np.any(np.diff(bounds) == 0):
        raise _first_problem(texts, heights, widths)
    starts, lengths, bounds = values[0::2] - 1, values[1::2], bounds // 2
    ends = starts + lengths
    pixels = np.asarray(heights, np.int64) * np.asarray(widths, np.int64)
    # Ends may overflow, so lengths are compared.
    too_long = lengths > np.repeat(pixels, np.diff(bounds)) - starts
    gaps = starts[1:] - ends[:-1]
    # From one text to the next there is no order.
    gaps[bounds[1:-1] - 1] = 1
    if (lengths < 1).any() or (starts < 0).any() or too_long.any() or (gaps < 0).any():
        raise _first_problem(texts, heights, widths)
    return Runs(starts, ends, bounds)


def write(runs: Runs) -> list[str]:
    """The annotations of masks; one without runs gives an empty text."""
    pairs = np.stack([runs.starts + 1, runs.ends - runs.starts], axis=1).ravel()
    words = list(map(str, pairs.tolist()))
    return [" ".join(words[a:b]) for a, b in itertools.pairwise((2 * runs.bounds).tolist())]


def problem(text: str, height: int, width: int) -> str | None:
    """What is wrong with an annotation, and the remedy; None if nothing is wrong.

    Args:
        text: the annotation.
        height: the frame's rows.
        width: the frame's columns.
    """
    # As bytes, only ASCII's blanks and digits count as such.
    tokens = text.encode(errors="replace").split()
    if not tokens:
        return "the annotation is empty; a cell needs at least one 'start length' pair"
    for token in tokens:
        if not token.removeprefix(b"-").isdigit():
            return (
                f"'{token.decode()[:20]}' is not a whole number; "
                "write 'start length' pairs separated by blanks"
            )
        if len(token.lstrip(b"-0")) > _DIGITS:
            return f"a number of {len(token)} digits leaves the {width} x {height} frame's pixels"
    if len(tokens) % 2:
        return f"{len(tokens)} numbers, an odd count; every start needs a length"
    last_end = 1
    for start, length in zip(map(int, tokens[0::2]), map(int, tokens[1::2]), strict=True):
        if length < 1:
            return f"length {length} at start {start}; lengths must be at least 1"
        if start < 1 or start + length - 1 > height * width:
            return (
                f"pair '{start} {length}' leaves the {width} x {height} frame's pixels 1 to {height * width}"
            )
        if start < last_end:
            return (
                f"start {start} comes before the end of the pair before it; sort the pairs and merge overlaps"
            )
        last_end = start + length
    return None


def _first_problem(texts: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> RleError:
    for index, text in enumerate(texts):
        found = problem(text, int(heights[index]), int(widths[index]))
        if found:
            return RleError(found, index)
    raise AssertionError("a batch was refused but none of its texts is wrong")


def _numbers(texts: Sequence[str]) -> tuple[NDArray | None, NDArray]:
    """All numbers in one array, and the bounds of each text's numbers; None if a text has other words."""
    try:
        buffer = " ".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return None, np.empty(0, np.int64)
    codes = np.frombuffer(buffer, np.uint8)
    digit = (codes >= 48) & (codes <= 57)
    # 9 to 13 are tabs and ends of lines.
    if not (digit | (codes == 32) | (codes - 9 < 5)).all():
        return None, np.empty(0, np.int64)
    firsts = np.flatnonzero(digit[1:] & ~digit[:-1]) + 1
    if digit[:1].any():
        firsts = np.concatenate([[0], firsts])
    text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    bounds = np.concatenate([[0], np.searchsorted(firsts, text_ends)])
    return (np.fromstring(buffer, np.int64, sep=" ") if len(firsts) else np.empty(0, np.int64)), bounds
