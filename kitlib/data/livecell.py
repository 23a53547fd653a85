"""LIVECell: phase-contrast images of eight cell lines with polygons (Edlund et al., Nature Methods 2021).

The published files have faults, which ``load`` corrects and lists: images with two annotations, images of
``val`` that ``train`` holds as well, images of which hardly a cell is annotated, and images whose cells are
all outlined twice.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

import kitlib
from kitlib import files, records
from kitlib.data import cleaning, coco
from kitlib.data.competition import FOLDER as COMPETITION
from kitlib.data.competition import LIVECELL
from kitlib.data.config import Finding
from kitlib.errors import KitError, unknown
from kitlib.records import Frame

_SPLITS = ("train", "val", "test")
CATEGORY = "cell"
"""What every cell is called when all lines count as one class."""

TWICE, ALSO_EARLIER = "listed twice", "also in an earlier split"
HARDLY_ANNOTATED, OUTLINED_TWICE = "hardly annotated", "with cells outlined twice"

# Images nearest in time, by whose cells it is judged how many an image should have.
_NEIGHBOURS = 8
# An image counts as outlined twice when a larger share of its cells has a twin.
_TWIN_SHARE = 0.5

# MCF7_Phase_G4_2_02d16h00m_1.tif: line, well, place in the well, time, and which part of the photograph.
_NAME = re.compile(
    r"(?P<line>[^_]+)_Phase_(?P<well>[A-Z]+\d+)_(?:\d+_(?P<day>\d+)d(?P<hour>\d+)h(?P<minute>\d+)m)?"
)


@dataclass(frozen=True)
class LiveCell:
    """The frames that can be used, and the faults that were found."""

    frames: list[Frame]
    findings: list[Finding]

    @property
    def summary(self) -> str:
        """One line: how many images and cells there are, and what was done about the faults."""
        cells = sum(len(frame.cells) for frame in self.frames)
        done = Counter((finding.fault, finding.action) for finding in self.findings)
        faults = [f"{count} images {fault}: {action}" for (fault, action), count in sorted(done.items())]
        return "; ".join([f"{len(self.frames):,} images, {cells:,} cells", *faults])


class _Split(NamedTuple):
    """The frames of a split's file, and the names of the images that are listed or outlined twice."""

    frames: list[Frame]
    listed_twice: list[str]
    outlined_twice: list[str]


def load(
    data: Path | str,
    splits: Sequence[Literal["train", "val", "test"]] = ("train",),
    categories: Literal["one", "line"] = "one",
    few_cells: float = 0.1,
    cache: Path | None = None,
) -> LiveCell:
    """The labelled frames of some splits; their group is the well, by the file name.

    Of an image that is annotated twice, in one file or in several of ``splits``, the annotation with more
    cells is taken. An image that an earlier split lists (``train`` before ``val`` before ``test``) is left
    out of the later one: nothing that was trained on is evaluated on.

    Args:
        data: the competition's folder, ``LIVECell_dataset_2021`` itself, or a folder that holds either.
        splits: LIVECell's own: "train", "val" and "test"; without any, nothing is read.
        categories: "one" calls every cell "cell"; "line" names cells by their line: "A172", "SHSY5Y", ...
        few_cells: an image with fewer cells than this share of the median of its neighbours (the same well,
            nearest in time; else the same line) counts as hardly annotated and is left out. 0 leaves none
            out.
        cache: a folder for the masks that were made of the polygons: a second call takes seconds. Without it
            all cells stay in memory.

    Raises:
        KitError: no LIVECell there, or as ``kitlib.data.coco``: JSON cut short, images missing, bad
            annotations.
    """
    for split in splits:
        if split not in _SPLITS:
            raise unknown("LIVECell split", split, _SPLITS)
    if categories not in ("one", "line"):
        raise unknown("naming of LIVECell categories", categories, ("one", "line"))
    if not splits:
        return LiveCell([], [])
    root, findings = _root(Path(data)), []
    chosen: dict[str, Frame] = {}
    for split in sorted(set(splits), key=_SPLITS.index):
        found = _read(root, split, categories, cache)
        findings += [Finding(name, TWICE, "the fuller annotation kept") for name in found.listed_twice]
        frames, more = _unseen(found.frames, split, splits, root, chosen)
        findings += more + [Finding(n, OUTLINED_TWICE, "left out") for n in found.outlined_twice]
        bad = set(found.outlined_twice)
        chosen |= {frame.id: frame for frame in frames if _file_name(frame) not in bad}
    sparse = _hardly_annotated(list(chosen.values()), few_cells)
    findings += [Finding(_file_name(chosen[name]), HARDLY_ANNOTATED, "left out") for name in sparse]
    return LiveCell([frame for name, frame in chosen.items() if name not in sparse], findings)


def splits_in(data: Path | str) -> list[str]:
    """The splits whose annotations are there; none where there is no LIVECell."""
    try:
        root = _root(Path(data))
    except KitError:
        return []
    return [split for split in _SPLITS if _annotations(root, split).is_file()]


def _hardly_annotated(frames: Sequence[Frame], share: float) -> set[str]:
    """The ids of frames with fewer cells than ``share`` of the median of their neighbours.

    Neighbours are the frames of the same well that are nearest in time, or, where the well has fewer than
    three others, all of the same line: the frames of a sparse culture have sparse neighbours and stay.

    Args:
        frames: of any wells and lines.
        share: 0..1.
    """
    wells, lines = defaultdict(list), defaultdict(list)
    times = {frame.id: _hours(frame.id) for frame in frames}
    for frame in frames:
        wells[frame.group].append(frame)
        lines[line(frame.id)].append(frame)
    found = set()
    for frame in frames:
        others = wells[frame.group] if len(wells[frame.group]) > 3 else lines[line(frame.id)]
        others = [f for f in others if f is not frame]
        nearest = sorted(others, key=lambda f: abs(times[f.id] - times[frame.id]))
        counts = [len(f.cells) for f in nearest[:_NEIGHBOURS]]
        if counts and len(frame.cells) < share * np.median(counts):
            found.add(frame.id)
    return found


def well(name: str) -> str | None:
    """Cell line and well of a LIVECell file name, "MCF7_G4"; None for another name."""
    match = _NAME.match(name)
    return f"{match['line']}_{match['well']}" if match else None


def line(name: str) -> str | None:
    """The cell line of a LIVECell file name, "MCF7"; None for another name."""
    match = _NAME.match(name)
    return match["line"] if match else None


def _hours(name: str) -> float:
    """Hours from the beginning of the culture to the image, by its file name; 0 for another name."""
    match = _NAME.match(name)
    if not match or match["day"] is None:
        return 0.0
    return 24 * int(match["day"]) + int(match["hour"]) + int(match["minute"]) / 60


def _unseen(
    frames: Iterable[Frame], split: str, splits: Sequence[str], root: Path, chosen: Mapping[str, Frame]
) -> tuple[list[Frame], list[Finding]]:
    """The frames of a split that are new, or annotated more fully than in an earlier split; and the findings.

    Args:
        frames: of the split.
        split: its name.
        splits: the splits that are read.
        root: LIVECell's folder, where the lists of the other splits stand.
        chosen: the frames of earlier splits by id.
    """
    earlier = _SPLITS[: _SPLITS.index(split)]
    left_out = {n for s in earlier if s not in splits for n in _listed(root, s)}
    unseen, findings = [], []
    for frame in frames:
        name = _file_name(frame)
        if frame.id in chosen:
            findings.append(Finding(name, ALSO_EARLIER, "the fuller annotation kept"))
            if len(frame.cells) > len(chosen[frame.id].cells):
                unseen.append(frame)
        elif name in left_out:
            findings.append(Finding(name, ALSO_EARLIER, "left out"))
        else:
            unseen.append(frame)
    return unseen, findings


def _listed(root: Path, split: str) -> set[str]:
    path = _annotations(root, split)
    # Without the file, nothing can have been trained on the split.
    return coco.file_names(path) if path.is_file() else set()


def _read(root: Path, split: str, categories: str, cache: Path | None) -> _Split:
    """One split, from the cache where the same files were read before."""
    path, images = _annotations(root, split), root / "images"
    if not path.is_file():
        raise KitError(f"{path} does not exist; download LIVECell's annotations there")
    stored = cache / f"livecell_{split}_{categories}_{_fingerprint(path, images)}.npz" if cache else None
    if stored and stored.is_file() and stored.with_suffix(".json").is_file():
        return _Split(records.read_frames(stored), **files.read_json(stored.with_suffix(".json")))
    file, outlined_twice = coco.CocoFile(path, images), list[str]()
    frames = _frames(file, categories, outlined_twice)
    if not (cache and stored):
        return _Split(list(frames), file.listed_twice, outlined_twice)
    for old in cache.glob(f"livecell_{split}_{categories}_*"):
        old.unlink(missing_ok=True)
    records.write_frames(stored, frames)
    faults = {"listed_twice": file.listed_twice, "outlined_twice": outlined_twice}
    files.write_json(stored.with_suffix(".json"), faults)
    return _Split(records.read_frames(stored), **faults)


def _frames(file: coco.CocoFile, categories: str, outlined_twice: list[str]) -> Iterator[Frame]:
    """The frames of a file; names of those whose cells are outlined twice are added to ``outlined_twice``."""
    for frame in file.frames(_line if categories == "line" else _one):
        if cleaning.twins(frame) > _TWIN_SHARE * len(frame.cells):
            outlined_twice.append(_file_name(frame))
        category = frame.category or (_line(frame.id, CATEGORY) if categories == "line" else CATEGORY)
        yield replace(frame, category=category, group=well(frame.id))


def _fingerprint(path: Path, images: Path) -> str:
    """A hash of what a split's masks are made from: the file's size and time, the images' names and sizes."""
    status = path.stat()
    below = sorted(f"{p.relative_to(images)} {p.stat().st_size}" for p in images.rglob("*") if p.is_file())
    return files.fingerprint(kitlib.__version__, str(status.st_size), str(status.st_mtime_ns), *below)


def _file_name(frame: Frame) -> str:
    return frame.path.name if frame.path else frame.id


def _line(file_name: str, name: str) -> str:
    """The cell line at the start of a LIVECell file name; of other names, the category given in the file."""
    return line(Path(file_name).name) or name


def _one(file_name: str, name: str) -> str:
    return CATEGORY


def annotations_file(data: Path | str, split: str) -> Path:
    """The JSON file of a split that ``splits_in`` names."""
    return _annotations(_root(Path(data)), split)


def _annotations(root: Path, split: str) -> Path:
    """The JSON file of a split: where it is, or where the competition's folder would have it."""
    name = f"livecell_coco_{split}.json"
    places = [root / "annotations" / "LIVECell" / name, root / "annotations" / name, root / name]
    return next((path for path in places if path.is_file()), places[0])


def _root(data: Path) -> Path:
    for root in (data, data / LIVECELL, data / COMPETITION / LIVECELL):
        if (root / "annotations").is_dir():
            return root
    raise KitError(
        f"{data} holds no {LIVECELL}/ with annotations/ and images/; unpack LIVECell there, or correct --data"
    )
