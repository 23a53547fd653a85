"""The progress of a job: rows that it appends to a file of JSON lines, and the bar that shows them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
        terminal = sys.stdout.isatty()
        # Each refresh is a message in a notebook and a line in a log.
        every = 0.2 if terminal else 5.0
        # On stdout: a notebook shows stderr as if it were an error.
        self.bar = tqdm(total=total, desc=title, mininterval=every, dynamic_ncols=terminal, file=sys.stdout)

    def __call__(self, row: Row) -> None:
        if "note" in row:
            self.bar.write(str(row["note"]), file=sys.stdout)
        self.latest |= {k: f"{row[k]:.3g}" for k in self.shown if isinstance(row.get(k), int | float)}
        self.bar.set_postfix(self.latest, refresh=False)
        self.bar.update(row.get(self.key, self.bar.n) - self.bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
