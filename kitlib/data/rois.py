"""ImageJ's regions of interest, as its ROI Manager saves them: a .roi file, or a zip of them."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from kitlib.data.config import Findings
from kitlib.errors import KitError
from kitlib.masks import rle

if TYPE_CHECKING:
    from roifile import ImagejRoi

# Bytes of one ROI; a zip may claim any size.
_LARGEST_ROI = 1 << 24
# What zipfile raises, beside Python's own errors.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_AREAS = ("POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED")
"""Types of ROI that enclose pixels; the others are lines and points."""


def read_rois(path: Path, height: int, width: int, plane: int | None, findings: Findings) -> list[rle.RLE]:
    """The masks of a file's ROIs: the pixels whose centres they enclose, as ImageJ fills them.

    Lines, points and ROIs that cover no pixel of the frame are left out and reported.

    Args:
        path: .zip or .roi.
        height: the frame's rows.
        width: the frame's columns.
        plane: of a stack, the plane of the frame from 0; ROIs that belong to another one are left out. None
            takes all.
        findings: where what is left out is reported.

    Raises:
        KitError: the file is damaged or holds other files but no ROI, or the package roifile is missing.
    """
    masks, count = [], 0
    for name, data in _members(path):
        count += 1
        with findings.leaving_out(path / name):
            roi = _parsed(data)
            place = max(roi.position, roi.z_position, roi.t_position)
            if plane is not None and place > 0 and place != plane + 1:
                continue
            masks.append(_mask(roi, height, width))
    if not count and not _is_empty(path):
        raise KitError(f"{path} holds no ROI of ImageJ; save it with More, Save in the ROI Manager")
    return masks


def _is_empty(path: Path) -> bool:
    """Whether a file is an archive without a member, which ``kit predict`` writes of no cells."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not archive.namelist()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The ROIs of a file by their names in it."""
    try:
        if path.suffix.lower() == ".roi":
            yield path.stem, path.read_bytes()[: _LARGEST_ROI + 1]
            return
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith(".roi"):
                    with archive.open(member) as file:
                        yield member.filename, file.read(_LARGEST_ROI + 1)
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    # What zipfile and zlib raise for damaged files.
    except (*_DAMAGED, OSError, EOFError, ValueError, RuntimeError) as error:
        raise KitError(f"{path} is no whole zip of ROIs ({str(error)[:80]}); save it again") from error


def _parsed(data: bytes) -> ImagejRoi:
    try:
        import roifile
    except ImportError:
        raise KitError("ROIs of ImageJ are read by the package roifile: pip install roifile") from None
    if len(data) > _LARGEST_ROI:
        raise KitError("is too large for a ROI")
    try:
        return roifile.ImagejRoi.frombytes(data)
    # A damaged file makes roifile raise errors of any kind.
    except Exception as error:
        raise KitError(f"is no ROI of ImageJ ({str(error)[:80]}); save or copy it again") from error


def _mask(roi: ImagejRoi, height: int, width: int) -> rle.RLE:
    composite, kind = roi.multi_coordinates is not None, roi.roitype.name
    if not composite and kind not in _AREAS:
        raise KitError(f"is a {kind.lower()}, which encloses no pixels")
    if kind == "OVAL" and not composite:
        mask = _oval(roi, height, width)
    else:
        mask = _filled(_outlines(roi), height, width)
    if not rle.areas([mask])[0]:
        raise KitError("covers no pixel of its image")
    return mask


def _outlines(roi: ImagejRoi) -> list[NDArray[np.float64]]:
    """The closed lines, (N, 2) as x, y, of which the ROI's pixels are enclosed by an odd number."""
    try:
        outlines = [np.asarray(part, np.float64).reshape(-1, 2) for part in roi.coordinates(multi=True)]
    except Exception as error:
        raise KitError(f"is no ROI of ImageJ ({str(error)[:80]}); save or copy it again") from error
    if not all(np.isfinite(part).all() for part in outlines):
        raise KitError("holds a coordinate that is not finite; draw it again")
    return [part for part in outlines if len(part) >= 3]


def _filled(outlines: Sequence[NDArray[np.float64]], height: int, width: int) -> rle.RLE:
    points = np.concatenate([*outlines, np.zeros((0, 2))])
    inside = points[((points >= 0) & (points <= (width, height))).all(1)] if len(points) else points
    if not len(inside):
        return rle.from_crop(np.zeros((0, 0)), 0, 0, height, width)
    (left, top), (right, bottom) = points.min(0).clip(0), points.max(0).clip(0, (width, height))
    x, y = int(left), int(top)
    shape = int(np.ceil(bottom)) - y, int(np.ceil(right)) - x
    crop = np.zeros(shape, bool)
    for outline in outlines:
        # skimage's coordinates count from the centre of the first pixel.
        crop ^= polygon2mask(shape, outline[:, ::-1] - (y + 0.5, x + 0.5))
    return rle.from_crop(crop, x, y, height, width)


def _oval(roi: ImagejRoi, height: int, width: int) -> rle.RLE:
    y0, y1, x0, x1 = max(roi.top, 0), min(roi.bottom, height), max(roi.left, 0), min(roi.right, width)
    rows, columns = np.mgrid[y0 : max(y0, y1), x0 : max(x0, x1)] + 0.5
    down = (2 * rows - roi.top - roi.bottom) / max(roi.bottom - roi.top, 1)
    across = (2 * columns - roi.left - roi.right) / max(roi.right - roi.left, 1)
    return rle.from_crop(down**2 + across**2 <= 1, x0, y0, height, width)
