"""What a training writes down as it goes: rows of metrics, notes, learning curves, TensorBoard files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kitlib import files
from kitlib.errors import KitError

Row = dict[str, Any]
_logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CURVES = "curves.csv"


class Events:
    """The record of one training, appended to ``folder/metrics.jsonl``.

    Rows beyond ``iteration``, of a part of the training that a resumed one does again, are dropped first.

    Args:
        folder: of the training.
        iteration: how many iterations are done.
        writes: False on the other processes than the first: they write no record.
    """

    def __init__(self, folder: Path, iteration: int, writes: bool = True):
        self.folder, self._file, self._board = folder, None, None
        if not writes:
            return
        files.make_folder(folder)
        _cut(folder / METRICS, iteration)
        try:
            self._file = (folder / METRICS).open("a", encoding="utf-8")
        except OSError as error:
            raise files.cannot_write(folder / METRICS, error) from error
        self._board = _board(folder / "tensorboard", iteration)

    def write(self, row: Row) -> None:
        """Append a row; it holds ``iteration``, the number of iterations done."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({k: _plain(v) for k, v in row.items()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise files.cannot_write(self.folder / METRICS, error) from error
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, int | float) and key != "iteration":
                    self._board.add_scalar(key, value, row["iteration"])

    def note(self, iteration: int, text: str, **more: Any) -> None:
        """Say something aloud: in the log, in the metrics and under the progress bar."""
        if self._file is not None:
            _logger.warning("iteration %d: %s", iteration, text)
            self.write({"iteration": iteration, "note": text, **more})

    def write_curves(self) -> None:
        """Bring ``curves.csv`` up to date with the rows."""
        if self._file is not None:
            files.write_csv(self.folder / CURVES, curves(self.folder))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read(folder: Path | str) -> list[Row]:
    """The rows that a training in ``folder`` has written so far.

    Raises:
        KitError: a row was damaged later.
    """
    path = Path(folder) / METRICS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # the last one is empty, or not finished
    return [_row(path, number, line) for number, line in enumerate(lines, 1)]


def curves(folder: Path | str) -> pd.DataFrame:
    """One row an iteration: losses, learning rate, times, and the scores where it was evaluated."""
    rows = [
        {k: v for k, v in row.items() if isinstance(v, int | float)}
        for row in read(folder)
        if "note" not in row
    ]
    if not rows:
        return pd.DataFrame(columns=["iteration"])
    return pd.DataFrame(rows).groupby("iteration", as_index=False).first()


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The curves of trainings that followed each other as one table, whose iterations go on."""
    found, begun = [], 0
    for table in tables:
        found.append(table.assign(iteration=table["iteration"] + begun))
        begun = int(found[-1]["iteration"].max()) if len(table) else begun
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["iteration"])


def _cut(path: Path, iteration: int) -> None:
    """Cut off the rows from the first beyond ``iteration`` on, and a last row that was not finished."""
    if not path.exists():
        return
    length = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") or _row(path, number, line)["iteration"] > iteration:
                break
            length += len(line)
    with path.open("r+b") as file:
        file.truncate(length)


def _row(path: Path, number: int, line: bytes) -> Row:
    """A row as it was written.

    Raises:
        KitError: it is none.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
        raise KitError(f"{path} row {number} is damaged; delete that row, it is for curves only")
    return row


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no Inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: Path, iteration: int) -> Any:
    """A TensorBoard writer where the package is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None)
