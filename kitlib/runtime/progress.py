"""The progress of a job: rows that it appends to a file of JSON lines, and the bar that shows them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

Row = dict[str, Any]


def parse_row(line: bytes) -> Row | None:
    """The row in a line of a progress file; None for an empty or half-written line."""
    try:
        return json.loads(line) if line.startswith(b"{") else None
    except ValueError:
        return None


def follow(path: Path) -> Iterator[list[Row]]:
    """Yield [] first, then at each step the whole rows that were appended since the step before.

    A file that became shorter, as that of a resumed run, is read from its new end on.
    """
    position = path.stat().st_size if path.exists() else 0
    yield []
    while True:
        rows = []
        if path.exists():
            with path.open("rb") as file:
                position = min(position, file.seek(0, os.SEEK_END))
                file.seek(position)
                whole, newline, _ = file.read().rpartition(b"\n")
            position += len(whole) + len(newline)
            rows = list(filter(None, map(parse_row, whole.splitlines())))
        yield rows


class PlainLines:
    """A text stream for a log, where a bar that redraws itself would leave one endless line.

    What ends with a line feed is written at once. Of what a carriage return replaces, as tqdm's bars do, the
    line as it stands is written when the last one is long enough ago.

    Args:
        file: the log.
        seconds: between two lines of the same bar.
    """

    encoding = "utf-8"

    def __init__(self, file: TextIO, seconds: float = 30.0):
        self._file, self._seconds = file, seconds
        self._line, self._written = "", -float("inf")

    def write(self, text: str) -> int:
        for part in re.split(r"([\r\n])", text):
            if part == "\n":
                self._put()
            elif part == "\r":
                if self._line.strip() and time.monotonic() - self._written >= self._seconds:
                    self._put()
                self._line = ""
            else:
                self._line += part
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def _put(self) -> None:
        self._file.write(self._line.rstrip() + "\n")
        self._line, self._written = "", time.monotonic()


def for_bars(file: TextIO) -> TextIO | PlainLines:
    """A standard stream as bars may write to it: as it is on a terminal and in a notebook, which redraw a
    line, and else with plain lines."""
    redraws = file.isatty() or type(file).__module__.startswith("ipykernel.")
    return file if redraws else PlainLines(file)


class Bar:
    """A plain ``tqdm`` bar fed with progress rows; reads well in a notebook, on a terminal and in a log.

    Args:
        total: the count at which the work is done.
        title: shown before the bar.
        key: the row's key that holds the count done so far.
        shown: keys whose latest values are shown after the bar.
    """

    def __init__(
        self, total: int, title: str, key: str = "iteration", shown: Sequence[str] = ("total_loss", "map")
    ):
        from tqdm import tqdm

        self.key, self.shown = key, shown
        self.latest: dict[str, str] = {}
        self._latest_of: dict[str, dict[str, str]] = {}
        terminal = sys.stdout.isatty()
        # Each refresh is a message in a notebook and a line in a log.
        every = 0.2 if terminal else 5.0
        # On stdout: a notebook shows stderr as if it were an error.
        self._file = for_bars(sys.stdout)
        self.bar = tqdm(total=total, desc=title, mininterval=every, dynamic_ncols=terminal, file=self._file)

    def __call__(self, row: Row, job: str = "") -> None:
        """Show a row; of several jobs with one bar, ``job`` names the one whose note and values these are."""
        if "note" in row:
            self.bar.write(_named(job, str(row["note"])), file=self._file)
        self.latest = self._latest_of.setdefault(job, {})
        self.latest |= {k: f"{row[k]:.3g}" for k in self.shown if isinstance(row.get(k), int | float)}
        values = ", ".join(f"{key}={value}" for key, value in self.latest.items())
        self.bar.set_postfix_str(_named(job, values), refresh=False)
        self.bar.update(row.get(self.key, self.bar.n) - self.bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _named(job: str, text: str) -> str:
    return f"{job}: {text}" if job else text
