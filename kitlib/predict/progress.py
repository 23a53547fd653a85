"""How far a prediction job has come: a file of rows, and a file for each frame that is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.predict.cells import Prediction
from kitlib.records import Frame
from kitlib.runtime import launch
from kitlib.runtime.progress import parse_row

NAME = "progress.jsonl"
_ASSIGNED = "assigned.json"
_MAX_DEATHS = 2
"""Processes that may die while they predict one frame. The first death may have had another cause."""


def part_file(folder: Path, index: int) -> Path:
    """The file that holds the predictions of one frame, at each mask threshold, until all are done."""
    return folder / f"{index:06d}.npz"


class Progress:
    """The rows in a job's folder, one for each step of a frame: begun, then done or skipped.

    Processes append whole short rows, so that several may write to one file.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def restart(self) -> None:
        """Forget all rows but those of frames that are done: an interruption is no frame's fault."""
        done = [json.dumps(row) + "\n" for row in self.rows() if "seconds" in row]
        files.write_text(self.folder / NAME, "".join(done))
        for other in self._files()[1:]:
            other.unlink()

    def begun(self, frame: Frame) -> None:
        """The models predict a frame from here on; without a further row the process died of it."""
        self._append({"id": frame.id, "begun": 1})

    def skipped(self, frame: Frame, why: str) -> None:
        self._append({"id": frame.id, "skipped": why, "note": f"{frame.id} is left out: {why}"})

    def done(
        self, frame: Frame, found: Prediction, seconds: float, no_time: str = "", no_memory: str = ""
    ) -> None:
        """A frame's part is written.

        Args:
            frame: the frame.
            found: what was predicted.
            seconds: the time that it took.
            no_time: what there was no time for; "" where there was for all.
            no_memory: the same of memory.
        """
        short = {"time": no_time, "memory": no_memory}
        without = "; ".join(filter(None, short.values()))
        notes = [f"{frame.id}: short of {what}, so without {lost}" for what, lost in short.items() if lost]
        note = {"note": "\n".join(notes)} if notes else {}
        facts = {"cells": len(found.tables[0]), "limited": found.limited, "seconds": seconds}
        self._append({"id": frame.id, **facts, "without": without, **note})

    def unfinished(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of the frames that are not done."""
        return [i for i in range(len(frames)) if not part_file(self.folder, i).exists()]

    def remaining(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of the frames to predict: not done, not skipped, and not the death of too many
        processes."""
        died, skipped = self.deaths(), self.last("skipped")
        ids = {i: frames[i].id for i in self.unfinished(frames)}
        return [i for i, name in ids.items() if died[name] < _MAX_DEATHS and name not in skipped]

    def assign(self, frames: Sequence[Frame]) -> None:
        """Write down the frames that the processes share which start now."""
        died = self.deaths()
        files.write_json(self.folder / _ASSIGNED, [(i, died[frames[i].id]) for i in self.remaining(frames)])

    def assigned(self, rank: int, world: int) -> list[int]:
        """The numbers of one process's frames, of ``world`` processes.

        Frames of which a process died come last and all to the first process: else other processes might die
        of them as well.
        """
        assigned = sorted(files.read_json(self.folder / _ASSIGNED), key=lambda frame: frame[1])
        return [i for i, died in assigned if (0 if died else i % world) == rank]

    def deaths(self) -> Counter[str]:
        """How often the process died while it had a frame in work, by id."""
        died: Counter[str] = Counter()
        for row in self.rows():
            died[row["id"]] += 1 if "begun" in row else -1 if died[row["id"]] else 0
        return +died

    def last(self, key: str) -> dict[str, Any]:
        """The last value of a key, by id, of the frames that have one."""
        return {row["id"]: row[key] for row in self.rows() if key in row}

    def rows(self) -> list[dict[str, Any]]:
        lines = [line for path in self._files() for line in path.read_bytes().splitlines()]
        return list(filter(None, map(parse_row, lines)))

    def _files(self) -> list[Path]:
        """The files of rows: one, or on a cluster one for each launch."""
        return sorted(
            self.folder.glob(f"{Path(NAME).stem}*"), key=lambda path: (path.name != NAME, path.name)
        )

    def _append(self, row: dict[str, Any]) -> None:
        with (self.folder / launch.progress_of_share(NAME)).open("a", encoding="utf-8") as file:
            # The blank line ends a row within which a process may have died.
            file.write("\n" + json.dumps(row) + "\n")
