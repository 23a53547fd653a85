"""Cells to compare: frames that were read already, or those of a table, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from kitlib.data import tables
from kitlib.data.tables import Size
from kitlib.records import Frame


class Source(Protocol):
    """The frames of a file or a folder.

    Attributes:
        path: the file or folder that is read; in a folder with several formats, that of the one chosen.
        lacks_sizes: whether the sizes of its images have to come from elsewhere.
        faults: what was left out or is doubtful, a sentence a file; complete once the frames are read.
    """

    path: Path
    lacks_sizes: bool

    @property
    def faults(self) -> list[str]: ...

    def sizes(self) -> dict[str, Size]:
        """Height and width of each image by id."""

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> Iterable[Frame]:
        """Its frames, each id once.

        Args:
            sizes: height and width by id, for a source that lacks them.
            in_step: read frames while they are taken, in little memory, if the file's order allows it.

        Raises:
            ScatteredRows: the order does not allow it.
        """


class Frames:
    """Frames that were read already."""

    lacks_sizes = False

    def __init__(self, path: Path, frames: list[Frame], faults: Iterable[str] = ()) -> None:
        self.path, self._frames, self.faults = path, frames, list(faults)

    def sizes(self) -> dict[str, Size]:
        return {frame.id: (frame.height, frame.width) for frame in self._frames}

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> list[Frame]:
        return self._frames


class Table:
    """A CSV table; its frames are read one after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.faults = path, list[str]()
        self.lacks_sizes = not tables.has_sizes(path)

    def sizes(self) -> dict[str, Size]:
        return tables.read_sizes(self.path)

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> Iterable[Frame]:
        return (tables.iter_cells if in_step else tables.read_cells)(self.path, sizes)
