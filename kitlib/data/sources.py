"""Cells to compare, from a file or a folder in any format: CSV table, COCO JSON, label images, ROIs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from kitlib.data import tables
from kitlib.data.tables import Size
from kitlib.errors import KitError
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


def open_source(path: Path) -> Source:
    """A file or folder of cells, whose format is found by looking.

    A file is a CSV table of the competition's kind or COCO JSON, without its images. A folder is one that
    ``kitlib.data.dataset.open_folder`` reads, or holds annotations without images: label images, Cellpose's
    files, COCO JSON, zips of ROIs. Of the formats that ``kit predict`` wrote side by side, the one that keeps
    most of a cell is taken: COCO JSON has overlap, types and scores, a label image neither, a ROI no hole.

    Raises:
        KitError: there is no such file or folder, its format is another one, or it cannot be read.
    """
    if path.is_dir():
        # Imported where they are needed: that takes longer than to read a table.
        from kitlib.data import annotations

        return annotations.open_annotations(path)
    if tables.is_table(path):
        return _Table(path)
    if path.name.lower().endswith(".json"):
        from kitlib.data import coco

        return Frames(path, coco.read_alone(path))
    if not path.exists():
        raise KitError(f"{path} does not exist")
    raise KitError(f"{path} is neither a CSV table nor a COCO JSON file; name one of these, or a folder")


class Frames:
    """Frames that were read already."""

    lacks_sizes = False

    def __init__(self, path: Path, frames: list[Frame], faults: Iterable[str] = ()) -> None:
        self.path, self._frames, self.faults = path, frames, list(faults)

    def sizes(self) -> dict[str, Size]:
        return {frame.id: (frame.height, frame.width) for frame in self._frames}

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> list[Frame]:
        return self._frames


class _Table:
    """A CSV table; its frames are read one after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.faults = path, list[str]()
        self.lacks_sizes = not tables.has_sizes(path)

    def sizes(self) -> dict[str, Size]:
        return tables.read_sizes(self.path)

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> Iterable[Frame]:
        return (tables.iter_cells if in_step else tables.read_cells)(self.path, sizes)
