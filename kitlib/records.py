"""The records that everything passes on: a cell, a frame with its cells, and frames as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kitlib import files
from kitlib.errors import KitError
from kitlib.rle import RLE


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its mask, its type, and, when a model found it, how sure the model is.

    Attributes:
        mask: RLE of the whole frame.
        category: cell type, e.g. "cort".
        score: detection score in 0..1; None for an annotated cell.
        mask_score: mean probability of the mask's pixels in 0..1; None where not known.
        agreement: share, in 0..1, of the models and views that saw the cell; None where not known.
    """

    mask: RLE
    category: str
    score: float | None = None
    mask_score: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One image and its cells; a data set is a list of these.

    Attributes:
        id: the image's name without extension.
        path: the image file; None where only the cells are known.
        height: rows.
        width: columns.
        cells: annotated, pseudo-labelled or predicted cells; may overlap.
        category: the type of the frame's cells where it is known.
        group: what the frame was cut or taken from (a sample, a well): frames of one group stay in one fold.
        weight: factor on the frame's training loss; below 1 for pseudo-labelled frames.
        ignore: where it is not known what there is, neither cell nor background: no training loss there.
    """

    id: str
    path: Path | None
    height: int
    width: int
    cells: tuple[Cell, ...] = ()
    category: str | None = None
    group: str | None = None
    weight: float = 1.0
    ignore: RLE | None = None

    @property
    def pseudo(self) -> bool:
        """Whether the cells come from a model rather than from an annotator."""
        return any(cell.score is not None for cell in self.cells)


def write_frames(path: Path | str, frames: Sequence[Frame]) -> Path:
    """Write frames as JSON lines: how notebooks hand data to training and prediction processes."""
    with files.atomic(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for frame in frames:
            out.write(json.dumps(_to_dict(frame)) + "\n")
    return Path(path)


def read_frames(path: Path | str) -> list[Frame]:
    """Read frames that ``write_frames`` wrote.

    Raises:
        KitError: the file is missing or damaged; the line is named.
    """
    frames = []
    try:
        with Path(path).open("rb") as lines:
            for line in lines:
                frames.append(_from_dict(json.loads(line)))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist; run the stage that writes it") from None
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise KitError(
            f"{path} line {len(frames) + 1} is damaged ({type(error).__name__}: {error}); "
            "run the stage that writes it again"
        ) from error
    return frames


def _to_dict(frame: Frame) -> dict:
    return {
        "id": frame.id,
        "path": str(frame.path.resolve()) if frame.path else None,
        "height": frame.height,
        "width": frame.width,
        "category": frame.category,
        "group": frame.group,
        "weight": frame.weight,
        "ignore": frame.ignore["counts"].decode() if frame.ignore else None,
        "cells": [
            [c.mask["counts"].decode(), c.category, c.score, c.mask_score, c.agreement] for c in frame.cells
        ],
    }


def _from_dict(values: dict) -> Frame:
    size = [values["width"], values["height"]]
    cells = tuple(Cell(RLE(size=size, counts=c.encode()), *rest) for c, *rest in values.pop("cells"))
    path, ignore = values.pop("path"), values.pop("ignore")
    return Frame(
        path=Path(path) if path else None,
        cells=cells,
        ignore=RLE(size=size, counts=ignore.encode()) if ignore else None,
        **values,
    )
