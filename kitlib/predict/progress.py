"""How far a prediction job has come: a file of rows beside a file for each frame that is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.records import Frame
from kitlib.runtime.progress import parse_row

NAME = "progress.jsonl"
ASSIGNED = "assigned.json"
CHANCES = 2  # a process may have died beside a frame, for another's sake, but hardly twice


def part(folder: Path, index: int) -> Path:
    """The file that holds the predictions of one frame, at each level, until all are done."""
    return folder / f"{index:06d}.npz"


class Progress:
    """The rows in a job's folder, one for each step of a frame: begun, then done or skipped.

    Processes append whole short rows, so that several may write to one file.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def forget(self) -> None:
        """Begin anew but for the frames that are done: an interruption is no frame's fault."""
        done = [json.dumps(row) + "\n" for row in self.rows() if "seconds" in row]
        files.write_text(self.folder / NAME, "".join(done))

    def begun(self, frame: Frame) -> None:
        """A frame goes through the networks from here on; without a further row it took the process along."""
        self._tell({"id": frame.id, "begun": 1})

    def skipped(self, frame: Frame, why: str) -> None:
        self._tell({"id": frame.id, "skipped": why, "note": f"{frame.id} is left out: {why}"})

    def done(self, frame: Frame, cells: int, seconds: float, no_time: str = "", no_memory: str = "") -> None:
        """A frame's part is written; it was predicted without what there was no time or no memory for."""
        short = {"time": no_time, "memory": no_memory}
        without = "; ".join(filter(None, short.values()))
        notes = [f"{frame.id}: short of {what}, so without {lost}" for what, lost in short.items() if lost]
        note = {"note": "\n".join(notes)} if notes else {}
        self._tell({"id": frame.id, "cells": cells, "seconds": seconds, "without": without, **note})

    def unfinished(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of the frames that are not done."""
        return [i for i in range(len(frames)) if not part(self.folder, i).exists()]

    def left(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of those that are still to be tried: not skipped, and processes did not keep dying of
        them."""
        died, skipped = self.died(), self.told("skipped")
        ids = {i: frames[i].id for i in self.unfinished(frames)}
        return [i for i, name in ids.items() if died[name] < CHANCES and name not in skipped]

    def assign(self, frames: Sequence[Frame]) -> None:
        """Write down what the processes that start now share out, whatever each finds done when it comes."""
        died = self.died()
        files.write_json(self.folder / ASSIGNED, [(i, died[frames[i].id]) for i in self.left(frames)])

    def assigned(self, rank: int, world: int) -> list[int]:
        """The numbers of one process's frames. One beside which a process died comes last, and to the first
        process, or it would take others along."""
        left = sorted(files.read_json(self.folder / ASSIGNED), key=lambda frame: frame[1])
        return [i for i, died in left if (0 if died else i % world) == rank]

    def died(self) -> Counter[str]:
        """How often the process died while it had a frame in work, by id."""
        died: Counter[str] = Counter()
        for row in self.rows():
            died[row["id"]] += 1 if "begun" in row else -1 if died[row["id"]] else 0
        return +died

    def told(self, key: str) -> dict[str, Any]:
        """The last value of a key, by id, of the frames that have one."""
        return {row["id"]: row[key] for row in self.rows() if key in row}

    def rows(self) -> list[dict[str, Any]]:
        path = self.folder / NAME
        lines = path.read_bytes().splitlines() if path.exists() else []
        return list(filter(None, map(parse_row, lines)))

    def _tell(self, row: dict[str, Any]) -> None:
        with (self.folder / NAME).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row) + "\n")  # a process may have died within a row
