"""Cells that were corrected by hand: a table of whole frames, which takes the place of their annotation.

The table, ``corrections.csv``, has the columns of the competition's train.csv. A frame that is in it was
corrected, and has the cells of its rows and no others; one row with an empty annotation says that it has
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kitlib.data import tables
from kitlib.data.images import first_few
from kitlib.errors import KitError, shortened
from kitlib.records import Frame


def apply(frames: Sequence[Frame], path: Path | str) -> list[Frame]:
    """Frames in which corrected cells take the place of the annotated ones.

    A corrected frame has the table's cells, which have no scores, full weight in training, and no ignored
    pixels, since a person has looked at all of it. The other frames are the same as before.

    Args:
        frames: labelled or pseudo-labelled frames with their images.
        path: ``corrections.csv``, as the viewer saves it.

    Raises:
        KitError: the table is missing or a row is bad, or it corrects an image that is not among the frames
            or has another size.

    Example:
        >>> frames = corrections.apply(competition.labelled(data), "corrections.csv")  # doctest: +SKIP
    """
    table = {frame.id: frame for frame in tables.read_cells(path)}
    unknown = sorted(table.keys() - {frame.id for frame in frames})
    if unknown:
        raise KitError(
            f"{path} corrects {len(unknown)} images that are not among the {len(frames)} of the data: "
            f"{first_few(unknown)}; remove their rows, or use the data that were corrected"
        )
    return [corrected(f, table[f.id], path) if f.id in table else f for f in frames]


def corrected(frame: Frame, correction: Frame, path: Path | str) -> Frame:
    """A frame with the cells of its correction, as ``apply``.

    Args:
        frame: as it was annotated.
        correction: the frame of the same id in the table.
        path: the table, for the error.

    Raises:
        KitError: their sizes differ.
    """
    if (frame.height, frame.width) != (correction.height, correction.width):
        raise KitError(
            f"{path} (id {shortened(frame.id)}) says width {correction.width}, height {correction.height}, "
            f"but the image is {frame.width} wide, {frame.height} high; correct the image's cells again"
        )
    category = correction.category or frame.category
    return replace(frame, cells=correction.cells, category=category, weight=1.0, ignore=None)


def read(path: Path | str) -> dict[str, Frame]:
    """The corrected frames by id, without their images; none where there is no such file yet.

    Raises:
        KitError: the file's name does not begin with "corrections" and end with ".csv", or it cannot be read.
    """
    path = Path(path)
    if not (path.name.startswith("corrections") and path.suffix == ".csv"):
        raise KitError(
            f"corrections cannot be saved as {path.name}, since that may be an original; "
            "name the file corrections.csv or corrections_NAME.csv"
        )
    return {frame.id: frame for frame in tables.read_cells(path)} if path.exists() else {}


def save(path: Path | str, changed: Mapping[str, Frame | None]) -> Path:
    """Write corrected frames into a table, atomically; the other frames that it holds stay.

    Args:
        path: ``corrections.csv``; it may not exist yet.
        changed: the corrected frames by id; None takes a frame out of the table.

    Raises:
        KitError: as ``read``, or the file cannot be written.
    """
    table = {**read(path), **changed}
    return tables.write_annotations(path, [frame for frame in table.values() if frame is not None])
