"""The last step of a frame's prediction: cells are made of what networks detected, and written.

Workers do it, so nothing here imports torch.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kitlib import records
from kitlib.errors import KitError
from kitlib.offline import reason
from kitlib.predict import cells
from kitlib.predict.cells import Seen
from kitlib.predict.progress import Progress, part_file
from kitlib.records import Cell, Frame

_logger = logging.getLogger(__name__)


class Numbered(NamedTuple):
    """A frame with its number in the job, and whether a process died of it before."""

    number: int
    frame: Frame
    suspect: bool


class Task(NamedTuple):
    """What is left to do of a frame.

    Attributes:
        numbered: the frame.
        seen: what was detected in it.
        seconds: how long the networks took.
        no_time: what there was no time for; "" where there was for all.
        faint: what was detected at any score, where there was no cell before.
        drawn: the masks that are drawn in the boxes of the frame's own cells, where these are asked for.
    """

    numbered: Numbered
    seen: Seen
    seconds: float
    no_time: str
    faint: Seen | None = None
    drawn: tuple[Cell, ...] | None = None


class Finisher:
    """Makes the cells of frames and writes them into a job's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.progress = folder, Progress(folder)

    def finish(self, task: Task) -> bool:
        """Write a frame's part, then a row that it is done; False where there is no cell, and nothing is
        written.

        Raises:
            KitError: the part cannot be written.
        """
        begun, frame = time.monotonic(), task.numbered.frame
        try:
            found = cells.make(task.seen, task.faint)
        except Exception as error:
            self.failed(frame, error)
            return True
        if task.faint is None and not found.tables[0]:
            return False
        frames = found.frames(frame)
        if task.drawn is not None:
            frames.append(replace(frame, cells=task.drawn))
        records.write_frames(part_file(self._folder, task.numbered.number), frames)
        seconds = task.seconds + time.monotonic() - begun
        self.progress.done(frame, found, seconds, task.no_time, (task.faint or task.seen).reduced)
        return True

    def failed(self, frame: Frame, error: Exception) -> None:
        """Skip a frame that cannot be predicted, whatever the reason."""
        _logger.error("%s", frame.id, exc_info=error)
        self.progress.skipped(frame, str(error) if isinstance(error, KitError) else reason(error))
