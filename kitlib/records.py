"""The records that everything passes on: a cell, a frame with its cells, and a file of frames."""

from __future__ import annotations

import io
import json
import mmap
import struct
import tokenize
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from kitlib import files
from kitlib.errors import KitError, shortened
from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.masks.runs import is_whole

# Cells whose pixels are in memory at once.
_CELLS_AT_ONCE = 500
# What zipfile, numpy and json raise for damaged files.
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError),
    *(struct.error, zipfile.BadZipFile, tokenize.TokenError, NotImplementedError),
)


#: The type of cells whose data name none.
UNTYPED = "cell"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its mask, its type, and the scores of a predicted cell.

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

    @property
    def confidence(self) -> float:
        """The score; 1 for an annotated cell, which has none."""
        return 1.0 if self.score is None else self.score


def rank(cells: Sequence[Cell]) -> list[int]:
    """Indices of the cells, best score first; ties go to the larger cell, then to the mask's text, so that
    the result does not depend on the order in which cells were given."""
    areas = rle.areas([cell.mask for cell in cells])
    return sorted(
        range(len(cells)), key=lambda i: (-cells[i].confidence, -areas[i], cells[i].mask["counts"], i)
    )


def voted_category(votes: Iterable[tuple[str, float]]) -> str | None:
    """The type of a frame, for which the scores of its instances add up to most; None without instances.

    A competition image holds one type of cell. With squared scores, one confident instance would outweigh the
    hundred faint ones of a frame whose type the model finds hard. Of equals the first name is taken.

    Args:
        votes: category and score of each instance.

    Example:
        >>> voted_category([("cort", 0.9), ("astro", 0.8), ("astro", 0.5)])
        'astro'
    """
    sums: dict[str, float] = {}
    for category, score in votes:
        sums[category] = sums.get(category, 0.0) + score
    return min(sums, key=lambda name: (-sums[name], name)) if sums else None


@dataclass(frozen=True, slots=True)
class Frame:
    """One image and its cells; a data set is a list of these.

    Attributes:
        id: the image's name without extension.
        path: the image file; None where only the cells are known.
        height: rows.
        width: columns.
        cells: annotated, pseudo-labelled or predicted cells; may overlap. Of a frame that was read from a
            file, each cell is made when it is asked for.
        category: the type of the frame's cells where it is known; of a predicted frame the one for which its
            instances voted, see ``voted_category``.
        group: what the frame was cut or taken from (a sample, a well): frames of one group stay in one fold.
        weight: factor on the frame's training loss; below 1 for pseudo-labelled frames.
        ignore: pixels that may be cell or background: no training loss there.
    """

    id: str
    path: Path | None
    height: int
    width: int
    cells: Sequence[Cell] = ()
    category: str | None = None
    group: str | None = None
    weight: float = 1.0
    ignore: RLE | None = None

    @property
    def pseudo(self) -> bool:
        """Whether any of the cells comes from a model rather than from an annotator."""
        if isinstance(self.cells, _StoredCells):
            return self.cells.scored
        return any(cell.score is not None for cell in self.cells)

    def to_labels(self) -> NDArray[np.integer]:
        """The label image, (H, W): 0 is background, cell number n of the frame is n, from 1.

        A pixel of several cells gets the best one's number, see ``rank``. A cell with no pixel of its own is
        thus absent, and the other cells still have their numbers.

        Returns:
            uint16; uint32 for a frame of more than 65,535 cells.

        Example:
            >>> left, right = rle.from_labels(np.array([[7, 7, 0, 9]]))
            >>> Frame("id", None, 1, 4, (Cell(left, "cort"), Cell(right, "cort"))).to_labels().tolist()
            [[1, 1, 0, 2]]
        """
        kind = np.uint16 if len(self.cells) <= np.iinfo(np.uint16).max else np.uint32
        labels = np.zeros(self.height * self.width, kind)
        cells = list(self.cells)
        # The best cell comes last and takes its pixels from the others.
        numbers = rank(cells)[::-1]
        for start in range(0, len(numbers), _CELLS_AT_ONCE):
            part = numbers[start : start + _CELLS_AT_ONCE]
            pixels = rle.pixels([cells[number].mask for number in part])
            for number, of_cell in zip(part, pixels, strict=True):
                labels[of_cell] = number + 1
        return labels.reshape(self.height, self.width)


def write_frames(path: Path | str, frames: Iterable[Frame]) -> Path:
    """Write frames for ``read_frames``: how notebooks hand data to training and prediction processes.

    The file is what ``numpy.savez`` writes; nothing in it is pickled. Frames are taken one at a time, so that
    a generator of them never has to fit into memory.

    Args:
        path: ends in ``.npz`` by custom.
        frames: with their images as paths; a relative path is resolved now, since the reading process may
            run in another folder.
    """
    columns = _Columns()
    for frame in frames:
        columns.add(frame)
    with files.atomic(path) as temporary, temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, **columns.arrays())
    return Path(path)


def read_frames(path: Path | str) -> list[Frame]:
    """Read frames that ``write_frames`` wrote.

    The masks stay in the file, which is mapped into memory: processes that read the same file share it, and
    a million cells cost each of them a few megabytes. The file may be replaced meanwhile, not edited.

    Raises:
        KitError: the file is missing or damaged.
    """
    try:
        return list(_FrameFile(Path(path)).frames())
    except FileNotFoundError:
        raise KitError(f"{path} does not exist; run the stage that writes it") from None
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGED as error:
        raise KitError(
            f"{path} is damaged, or of another version of the kit "
            f"({type(error).__name__}: {shortened(error)}); run the stage that writes it again"
        ) from error


# ------------------------------------------------------------------------------------------ writing


class _Columns:
    """The columns of a file of frames, gathered frame by frame; see ``_FrameFile``."""

    def __init__(self) -> None:
        self.frames: list[list] = []
        self.categories: dict[str, int] = {}
        self.counts = bytearray()
        self.bounds = array("q", [0])
        self.kinds = array("i")
        self.scores = array("d")
        self.scored = False

    def add(self, frame: Frame) -> None:
        scored = False
        for cell in frame.cells:
            self.counts += cell.mask["counts"]
            self.bounds.append(len(self.counts))
            self.kinds.append(self.categories.setdefault(cell.category, len(self.categories)))
            scores = (cell.score, cell.mask_score, cell.agreement)
            self.scores.extend(np.nan if score is None else score for score in scores)
            scored |= cell.score is not None
            self.scored |= scores != (None, None, None)
        path = str(frame.path.resolve()) if frame.path else None
        ignore = frame.ignore["counts"].decode("ascii") if frame.ignore else None
        named = (frame.id, path, frame.height, frame.width, frame.category, frame.group, frame.weight, ignore)
        self.frames.append([*named, len(self.kinds), scored])

    def arrays(self) -> dict[str, NDArray]:
        index = json.dumps({"frames": self.frames, "categories": list(self.categories)})
        scores = np.frombuffer(self.scores, np.float64) if self.scored else np.zeros(0)
        return {
            "index": np.frombuffer(index.encode(), np.uint8),
            "bounds": np.frombuffer(self.bounds, np.int64),
            "kinds": np.frombuffer(self.kinds, np.int32) if self.kinds else np.zeros(0, np.int32),
            "scores": scores.reshape(-1, 3),
            "counts": np.frombuffer(self.counts, np.uint8) if self.counts else np.zeros(0, np.uint8),
        }


# ------------------------------------------------------------------------------------------ reading

# Bytes. A smaller file is read whole: thousands of mapped files would be too many open files.
SMALL = 1 << 20
_KINDS = {"bounds": np.int64, "kinds": np.int32, "scores": np.float64, "counts": np.uint8}


class _FrameFile:
    """The arrays of a file of frames, mapped into memory.

    Attributes:
        bounds: (N + 1,) int64, where the counts of each of the N cells begin in ``counts``, and their end.
        kinds: (N,) int32, the place of each cell's category in ``categories``.
        scores: (N, 3) float64, score, mask score and agreement of each cell, NaN for None; (0, 3) where no
            cell has any.
        counts: (B,) uint8, COCO's compressed run lengths of all masks one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrays = _mapped(path)
        index = json.loads(arrays["index"].tobytes())
        self._frames, self.categories = index["frames"], index["categories"]
        self.bounds, self.kinds = arrays["bounds"], arrays["kinds"]
        self.scores, self.counts = arrays["scores"], arrays["counts"]
        if any(arrays[name].dtype != kind for name, kind in _KINDS.items()):
            raise ValueError("an array is of another type")
        whole = len(self.bounds) == len(self.kinds) + 1 and self.bounds[-1] <= len(self.counts)
        if not whole or len(self.scores) not in (0, len(self.kinds)):
            raise ValueError("masks or scores are missing")

    def damaged(self) -> KitError:
        """The error for cells that cannot be those which were written."""
        return KitError(f"{self.path} is damaged; run the stage that writes it again")

    def __reduce__(self) -> tuple:
        # Another process is sent the path alone.
        return _FrameFile, (self.path,)

    def frames(self) -> Iterator[Frame]:
        first = 0
        for name, path, height, width, category, group, weight, ignore, last, scored in self._frames:
            if not first <= last < len(self.bounds) or last > len(self.kinds):
                raise ValueError(f"frame {name} ends at cell {last}")
            size = [width, height]
            cells = _StoredCells(self, first, last, size, scored) if last > first else ()
            if ignore is not None and not is_whole(ignore.encode("ascii")):
                raise ValueError(f"frame {name} ignores an area that cannot be read")
            unknown = RLE(size=size, counts=ignore.encode("ascii")) if ignore is not None else None
            place = Path(path) if path is not None else None
            yield Frame(name, place, height, width, cells, category, group, weight, unknown)
            first = last


class _StoredCells(Sequence[Cell]):
    """The cells of one frame in a file of frames, each made when it is asked for.

    Attributes:
        scored: whether any of them has a score.
    """

    __slots__ = ("_file", "_first", "_last", "_size", "scored")

    def __init__(self, file: _FrameFile, first: int, last: int, size: list[int], scored: bool) -> None:
        self._file, self._first, self._last, self._size, self.scored = file, first, last, size, scored

    def __len__(self) -> int:
        return self._last - self._first

    def __iter__(self) -> Iterator[Cell]:
        return self._cells(self._first, self._last)

    @overload
    def __getitem__(self, item: int) -> Cell: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[Cell, ...]: ...
    def __getitem__(self, item: int | slice) -> Cell | tuple[Cell, ...]:
        if isinstance(item, slice):
            return tuple(self)[item]
        place = range(self._first, self._last)[item]
        return next(self._cells(place, place + 1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} cells in {self._file.path}>"

    def _cells(self, first: int, last: int) -> Iterator[Cell]:
        file = self._file
        names = file.categories
        kinds = file.kinds[first:last].tolist()
        bounds = file.bounds[first : last + 1].tolist()
        # Of these cells alone: to look at all would bring the whole file into each process's memory.
        if bounds[0] < 0 or bounds != sorted(bounds) or not all(0 <= kind < len(names) for kind in kinds):
            raise file.damaged()
        counts = file.counts[bounds[0] : bounds[-1]].tobytes()
        scores: list[Sequence[float | None]]
        if len(file.scores):
            scores = [[None if s != s else s for s in row] for row in file.scores[first:last].tolist()]
        else:
            scores = [()] * len(kinds)
        for kind, (begin, end), given in zip(kinds, pairwise(bounds), scores, strict=True):
            text = counts[begin - bounds[0] : end - bounds[0]]
            if not is_whole(text):
                raise file.damaged()
            yield Cell(RLE(size=self._size, counts=text), names[kind], *given)


def _mapped(path: Path) -> dict[str, NDArray]:
    """The arrays of an uncompressed ``.npz`` file by name, without copying a mapped file's bytes."""
    with path.open("rb") as file:
        small = file.seek(0, io.SEEK_END) < SMALL
        file.seek(0)
        buffer = file.read() if small else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    return {member.filename.removesuffix(".npy"): _array(buffer, member) for member in members}


def _array(buffer: bytes | mmap.mmap, member: zipfile.ZipInfo) -> NDArray:
    """One array of the archive: after the archive's own header of it and numpy's."""
    # At byte 26 the header has the lengths of the member's name and extra field.
    names = member.header_offset + 26
    start = names + 4 + sum(struct.unpack("<HH", buffer[names : names + 4]))
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    header = io.BytesIO(buffer[start : start + 4096])
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    count = int(np.prod(shape))
    return np.frombuffer(buffer, dtype, count, start + header.tell()).reshape(shape)
