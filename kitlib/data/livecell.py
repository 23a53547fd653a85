"""LIVECell: phase-contrast images of eight cell lines with polygons (Edlund et al., Nature Methods 2021)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kitlib.data import coco
from kitlib.data.competition import FOLDER as COMPETITION
from kitlib.errors import KitError, unknown
from kitlib.records import Frame

FOLDER = "LIVECell_dataset_2021"
SPLITS = ("train", "val", "test")
CATEGORY = "cell"
"""What every cell is called when all lines count as one class."""

_NAME = re.compile(r"(?P<line>[^_]+)_Phase_(?P<well>[A-Z]+\d+)_")  # MCF7_Phase_G4_2_02d16h00m_1.tif


def load(
    data: Path | str,
    split: Literal["train", "val", "test"] = "train",
    categories: Literal["one", "line"] = "one",
) -> list[Frame]:
    """The labelled frames of one split; their group is the well that the file name tells.

    Args:
        data: the competition's folder, ``LIVECell_dataset_2021`` itself, or a folder that holds either.
        split: "train", "val" or "test", LIVECell's own.
        categories: "one" calls every cell "cell"; "line" names cells by their line: "A172", "SHSY5Y", ...

    Raises:
        KitError: no LIVECell there, or as ``kitlib.data.coco.read``: JSON cut short, images missing, bad
        annotations.
    """
    if split not in SPLITS:
        raise unknown("LIVECell split", split, SPLITS)
    if categories not in ("one", "line"):
        raise unknown("way to name LIVECell categories", categories, ("one", "line"))
    root = _root(Path(data))
    name = f"livecell_coco_{split}.json"
    tried = [root / "annotations" / "LIVECell" / name, root / "annotations" / name, root / name]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        raise KitError(f"{tried[0]} does not exist; download LIVECell's annotations there")
    kind = _line if categories == "line" else _one
    frames = coco.read(path, root / "images", kind)
    return [
        replace(frame, category=frame.category or kind(frame.id, CATEGORY), group=well(frame.id))
        for frame in frames
    ]


def well(name: str) -> str | None:
    """Cell line and well of a LIVECell file name, "MCF7_G4"; None for another name."""
    match = _NAME.match(name)
    return f"{match['line']}_{match['well']}" if match else None


def _line(file_name: str, name: str) -> str:
    """The cell line at the start of a LIVECell file name; of other names, the category given in the file."""
    match = _NAME.match(Path(file_name).name)
    return match["line"] if match else name


def _one(file_name: str, name: str) -> str:
    return CATEGORY


def _root(data: Path) -> Path:
    for root in (data, data / FOLDER, data / COMPETITION / FOLDER):
        if (root / "annotations").is_dir():
            return root
    raise KitError(
        f"{data} holds no {FOLDER}/ with annotations/ and images/; unpack LIVECell there, or correct --data"
    )
