"""The cells of frames as a person has corrected them so far, with undo; every step is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from numpy.typing import ArrayLike

from kitlib.data import corrections
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.viewer import edits


class Edited(NamedTuple):
    """A frame's cells after an edit, and the places of those that it made."""

    cells: tuple[Cell, ...]
    made: range


class Corrected:
    """Corrections of frames.

    Attributes:
        path: ``corrections.csv``, which has every step; None where nothing can be corrected.
    """

    def __init__(self, frames: Mapping[str, Frame], path: Path | str | None) -> None:
        """Begin with the corrections that the file holds, if it is there.

        Raises:
            KitError: the file has another name, cannot be read, or has another size for an image.
        """
        self.path = None if path is None else Path(path).resolve()
        self._frames = frames
        self._corrected: dict[str, Frame] = {}
        self._steps: list[tuple[str, Frame | None]] = []
        for name, found in (corrections.read(self.path) if self.path else {}).items():
            if name in frames:
                self._corrected[name] = corrections.corrected(frames[name], found, self.path or "")

    def frame(self, frame_id: str) -> Frame:
        """A frame with its cells as they are now."""
        return self._corrected.get(frame_id) or self._frames[frame_id]

    def __contains__(self, frame_id: str) -> bool:
        return frame_id in self._corrected

    def change(self, frame_id: str, cells: Sequence[Cell]) -> None:
        """Give a frame these cells, and save.

        Raises:
            KitError: there is no file for corrections, or it cannot be written; nothing is changed then.
        """
        before = self._corrected.get(frame_id)
        unscored = tuple(Cell(cell.mask, cell.category) for cell in cells)
        self._put(frame_id, replace(self._frames[frame_id], cells=unscored))
        self._steps.append((frame_id, before))

    def undo(self) -> str:
        """Take the last step back, save, and return the id of its frame.

        Raises:
            KitError: there is no step since the viewer was opened, or as ``change``.
        """
        if not self._steps:
            raise KitError("there is nothing to undo since the viewer was opened")
        frame_id, before = self._steps[-1]
        self._put(frame_id, before)
        self._steps.pop()
        return frame_id

    def _put(self, frame_id: str, frame: Frame | None) -> None:
        if self.path is None:
            raise KitError("nothing can be corrected here; name a file: viewer.show(..., corrections=...)")
        corrections.save(self.path, {frame_id: frame})
        if frame is None:
            del self._corrected[frame_id]
        else:
            self._corrected[frame_id] = frame


def delete(cells: Sequence[Cell], chosen: Sequence[int]) -> Edited:
    """The cells without those chosen.

    Raises:
        KitError: none is chosen.
    """
    if not chosen:
        raise KitError("choose the cells to delete first")
    return Edited(tuple(cell for place, cell in enumerate(cells) if place not in set(chosen)), range(0))


def split(cells: Sequence[Cell], chosen: Sequence[int], line: ArrayLike) -> Edited:
    """The cells with the pieces of a chosen one, cut along a line, in its place.

    Raises:
        KitError: not one cell is chosen, or as ``edits.split``.
    """
    if len(chosen) != 1:
        raise KitError("choose one cell to split, or draw the line across one")
    place = chosen[0]
    pieces = [replace(cells[place], mask=mask) for mask in edits.split(cells[place].mask, line)]
    return Edited((*cells[:place], *pieces, *cells[place + 1 :]), range(place, place + len(pieces)))


def merge(cells: Sequence[Cell], chosen: Sequence[int]) -> Edited:
    """The cells with the union of those chosen in the place of the first, of the type of the largest.

    Raises:
        KitError: fewer than two are chosen.
    """
    if len(set(chosen)) < 2:
        raise KitError("choose two or more cells to merge: click the first, and the others with Shift")
    first, *others = sorted(set(chosen))
    masks = [cells[place].mask for place in (first, *others)]
    largest = (first, *others)[int(rle.areas(masks).argmax())]
    union = replace(cells[largest], mask=rle.merge(masks))
    left = [union if place == first else cell for place, cell in enumerate(cells) if place not in others]
    return Edited(tuple(left), range(first, first + 1))


def outline(frame: Frame, chosen: Sequence[int], points: ArrayLike, category: str) -> Edited:
    """The cells of a frame with an outlined one, in the place of the chosen one or, without one, as the last.

    Args:
        frame: its cells as they are now.
        chosen: no cell or one.
        points: the outline, (N, 2) x, y in pixels.
        category: the type of a new cell.

    Raises:
        KitError: several cells are chosen, or as ``edits.from_outline``.
    """
    if len(chosen) > 1:
        raise KitError("choose one cell to redraw, or none to add one")
    mask, cells = edits.from_outline(points, frame.height, frame.width), tuple(frame.cells)
    if not chosen:
        return Edited((*cells, Cell(mask, category)), range(len(cells), len(cells) + 1))
    place = chosen[0]
    return Edited(
        (*cells[:place], replace(cells[place], mask=mask), *cells[place + 1 :]), range(place, place + 1)
    )
