"""How a folder of one's own is read, and the faults that are found in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from kitlib.config import Count, configuration
from kitlib.errors import KitError

_LEFT_OUT = "left out"


@configuration
class ReadingConfig:
    """How images and label images of one's own are read. The competition's folder needs none of it."""

    channel: Count | Literal["grey"] | None = None
    """Which channel, from 0, of images that have several; grey: their mean; none: RGB becomes luminance."""
    plane: Count | None = None
    """Which plane, from 0, of images that hold several: slices, time points or pages, in the file's order."""
    projection: Literal["max", "mean"] | None = None
    """How the planes of an image become one, instead of a choice by ``plane``."""
    mask_suffixes: tuple[Annotated[str, Field(min_length=1)], ...] = (
        *("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg"),
    )
    """What the name of a label image has after the name of its image."""
    folders_are: Literal["nothing", "category", "group"] = "nothing"
    """What the names of sub-folders say: category: the type of their cells; group: plate, donor or day, whose
    images stay in one fold."""
    relabel: bool = False
    """Make each connected part of a number in a label image a cell of its own."""

    def __post_init__(self) -> None:
        if self.plane is not None and self.projection is not None:
            raise ValueError("give plane or projection, not both")


DEFAULTS = ReadingConfig()


class Finding(NamedTuple):
    """A fault of the data: the file, what is wrong with it, and what was done about it."""

    file: str
    fault: str
    action: str


class Findings(list[Finding]):
    """The faults of a folder; files are named by their path in it.

    Args:
        folder: it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def add(self, file: Path, fault: str, action: str = _LEFT_OUT) -> None:
        """Add a fault of a file of the folder."""
        name = file.relative_to(self.folder) if file.is_relative_to(self.folder) else file
        self.append(Finding(name.as_posix(), fault, action))

    @contextmanager
    def leaving_out(self, *files: Path) -> Iterator[None]:
        """A block that reads some files: its KitError becomes a finding, and the block ends there.

        The fault is that of the file with whose path the error begins, else that of the first.
        """
        try:
            yield
        except KitError as error:
            file = next((file for file in files if str(error).startswith(f"{file} ")), files[0])
            self.add(file, str(error).removeprefix(f"{file} "))

    def first_few(self, count: int = 3) -> str:
        """The first faults of files that were left out, for an error."""
        faults = [f"{f.file} {f.fault}" for f in self if f.action == _LEFT_OUT]
        more = f"; and {len(faults) - count} more" if len(faults) > count else ""
        return "; ".join(faults[:count]) + more
