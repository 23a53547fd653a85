"""TIFF files through tifffile: OME-TIFF, ImageJ's hyperstacks, any byte order, number type and compression.

Also the size of a pixel in micrometres, of these and other images.
"""

from __future__ import annotations

import logging
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from kitlib.data import images, lzw
from kitlib.errors import KitError
from kitlib.offline import out_of_memory

# The first bytes of TIFF and BigTIFF, little- and big-endian.
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Compressions by which a pixel's number changes: JPEG, JPEG 2000, WebP, JPEG XR, JPEG XL; also LERC.
_LOSSY = {6, 7, 33003, 33004, 33005, 34712, 34887, 34892, 34927, 50001, 50002, 52546, 22610, 34934}
_MICROMETRES = {
    **{"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "\\u00B5m": 1.0},
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0, "m": 1e6},
}
# Micrometres. Programs write 72 or 300 dots an inch, 350 or 85 micrometres, where they know nothing.
_LARGEST_PIXEL = 25.0
# How many times as large as its file an image may be: a damaged header may claim any size.
DENSEST, DENSEST_COMPRESSED = 1, 1 << 16
# TIFF's photometric interpretations.
WHITE_IS_ZERO, PALETTE, COLOURS = 0, 3, (2, 6)


class Stack(NamedTuple):
    """What a TIFF file holds, by its header.

    Attributes:
        axes: a letter an axis longer than 1, as tifffile names them: Y, X, C channels, Z slices, T times, S
            samples of a pixel, I or Q pages of unknown meaning.
        shape: the length of each.
        colour: whether the samples are red, green and blue.
        orientation: as Exif's.
        lossy: whether its compression changes numbers.
    """

    axes: str
    shape: tuple[int, ...]
    colour: bool
    orientation: int
    lossy: bool

    def count(self, axes: str) -> int:
        """The product of the lengths of some axes."""
        return math.prod(n for a, n in zip(self.axes, self.shape, strict=True) if a in axes)

    @property
    def plane_axes(self) -> str:
        """The axes that are neither those of a picture nor channels."""
        return "".join(axis for axis in self.axes if axis not in "YXCS")

    @property
    def channel_axes(self) -> str:
        """C and S, of which each stands here where channels or samples are to be chosen from."""
        return "".join(axis for axis in self.axes if axis in ("C" if self.colour else "CS"))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns as the picture is shown."""
        height, width = self.count("Y"), self.count("X")
        return (width, height) if self.orientation >= 5 else (height, width)

    def __str__(self) -> str:
        return ", ".join(f"{axis} {n}" for axis, n in zip(self.axes, self.shape, strict=True))


def is_tiff(path: Path) -> bool:
    """Whether the file begins as TIFF does, whatever its name; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[list[tifffile.TiffPageSeries]]:
    """The series of a TIFF file's pages, at least one; what goes wrong in the block becomes a KitError."""
    # tifffile logs what it finds odd in a file, with a traceback, before it goes on.
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        _check_chain(path)
        with tifffile.TiffFile(path, _multifile=False) as file:
            yield list(file.series)
    except KitError:
        raise
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    # A damaged file makes tifffile and its codecs raise errors of any kind.
    except Exception as error:
        raise _explained(path, error) from error
    finally:
        log.setLevel(level)


def _check_chain(path: Path) -> None:
    """Refuse pages that lead back to an earlier one: tifffile would follow them for ever."""
    with path.open("rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
        big = _number(file, f"{order}H") == 43
        # How the number of a page's tags and the place of the next page are written, and a tag's bytes.
        count, offset, tag = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
        file.seek(8 if big else 4)
        seen: set[int] = set()
        while 0 < (place := _number(file, offset)) < path.stat().st_size:
            if place in seen:
                raise KitError(f"{path} is damaged: its pages lead back to one another; copy it again")
            seen.add(place)
            file.seek(place)
            tags = _number(file, count)
            file.seek(tags * tag, os.SEEK_CUR)


def _number(file: BinaryIO, form: str) -> int:
    """The next number of a file; 0 at its end."""
    data = file.read(struct.calcsize(form))
    return struct.unpack(form, data)[0] if len(data) == struct.calcsize(form) else 0


def _explained(path: Path, error: Exception) -> KitError:
    if out_of_memory(error):
        return KitError(f"there is not enough memory to read {path}; give it a smaller image")
    if "imagecodecs" in str(error):
        return KitError(f"{path} is compressed; reading it needs a package: pip install imagecodecs")
    reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
    return KitError(f"{path} cannot be read ({reason}); it may be cut short: copy or download it again")


def stack(path: Path, series: Sequence[tifffile.TiffPageSeries]) -> Stack:
    if not series:
        raise KitError(f"{path} holds no image; replace it")
    if len({(s.axes, s.shape, s.dtype) for s in series}) > 1:
        shapes = ", ".join(str(s.shape) for s in series[:4])
        raise KitError(f"{path} holds images of several sizes ({shapes}); save each as a file of its own")
    axes, shape, dtype = series[0].axes, tuple(series[0].shape), series[0].dtype
    lengths = [("I", len(series)), *zip(axes, shape, strict=True)]
    lengths = [(axis, n) for axis, n in lengths if n != 1 or axis in "YX"]
    names = "".join(axis for axis, _ in lengths)
    if not (names.count("Y") == names.count("X") == 1) or 0 in shape:
        raise KitError(f"{path} holds no picture of rows and columns (axes: {axes}); replace it")
    page = series[0].keyframe
    if dtype is None or dtype.kind not in "biuf":
        raise KitError(f"{path} holds numbers of type {dtype}, which cannot be read; replace it")
    density = DENSEST if int(page.compression) == 1 else DENSEST_COMPRESSED
    if math.prod(shape) * len(series) * int(page.bitspersample) > density * 8 * path.stat().st_size:
        raise KitError(
            f"{path} is smaller than its {shape} pixels; it may be cut short: copy or download it again"
        )
    if any(part is None for one in series for part in one.pages):
        raise KitError(f"{path} is one of several files of a series; save it as a file of its own")
    tag = page.tags.get(images.ORIENTATION)
    orientation = tag.value if tag and tag.value in range(1, 9) else 1
    colour = "S" in names and int(page.photometric) in COLOURS
    return Stack(names, tuple(n for _, n in lengths), colour, orientation, int(page.compression) in _LOSSY)


def pixels(path: Path, series: Sequence[tifffile.TiffPageSeries], stack: Stack) -> NDArray:
    """The numbers in the order of the stack's axes; those that lie in the file as they are, are mapped."""
    lzw.check_pages(page for part in series for page in part.pages if page is not None)
    try:
        arrays = [part.asarray(out="memmap" if _is_mappable(part) else None) for part in series]
    except ValueError as error:
        # Pillow has some of the compressions built in.
        if "imagecodecs" not in str(error) or stack.plane_axes:
            raise
        with Image.open(path) as image:
            arrays = [np.asarray(image)]
    return (arrays[0] if len(arrays) == 1 else np.stack(arrays)).reshape(stack.shape)


def _is_mappable(series: tifffile.TiffPageSeries) -> bool:
    return series.dataoffset is not None and series.keyframe.is_memmappable


def plane(path: Path, series: Sequence[tifffile.TiffPageSeries], stack: Stack, number: int) -> NDArray:
    """One plane, (H, W, channels or samples), as ``ordered`` has it; pages of other planes are not read."""
    pages = [page for part in series for page in part.pages]
    inner = [n for a, n in zip(series[0].keyframe.axes, series[0].keyframe.shape, strict=True)
             if n != 1 or a in "YX"]  # fmt: skip
    outer = len(stack.axes) - len(inner)
    by_page = len(pages) == math.prod(stack.shape[:outer]) and list(stack.shape[outer:]) == inner
    if not (by_page and stack.plane_axes and set(stack.plane_axes) <= set(stack.axes[:outer])):
        return ordered(pixels(path, series, stack), stack)[number]
    # The place of each page: planes first, then channels.
    places = np.arange(len(pages)).reshape(stack.shape[:outer])
    places = places.transpose(sorted(range(outer), key=lambda axis: stack.axes[axis] == "C"))
    chosen = places.reshape(stack.count(stack.plane_axes), -1)[number]
    lzw.check_pages(pages[place] for place in chosen.tolist())
    array = np.stack([pages[place].asarray() for place in chosen.tolist()]).reshape(len(chosen), *inner)
    part = stack._replace(axes="C" + stack.axes[outer:], shape=array.shape)
    if len(array) == 1:
        array, part = array[0], part._replace(axes=part.axes[1:], shape=array.shape[1:])
    return ordered(array, part)[0]


def ordered(array: NDArray, stack: Stack) -> NDArray:
    """(planes, H, W, channels or samples); of colours in several channels, the luminance of each."""
    # Two axes of unknown meaning may have the same letter; all such come first.
    array = array.transpose(sorted(range(array.ndim), key=lambda place: "YXCS".find(stack.axes[place])))
    if stack.colour and "C" in stack.axes:
        array = images.luminance(array.reshape(-1, 1, array.shape[-1]))
    return array.reshape(stack.count(stack.plane_axes), stack.count("Y"), stack.count("X"), -1)


def in_colours(array: NDArray, series: Sequence[tifffile.TiffPageSeries]) -> NDArray:
    """The luminance of a palette's indices; white where a file's numbers count from white."""
    page = series[0].keyframe
    if int(page.photometric) == PALETTE and page.colormap is not None and array.dtype.kind == "u":
        return images.luminance((np.moveaxis(page.colormap, 0, -1) >> 8).astype(np.uint8)[array])
    if int(page.photometric) == WHITE_IS_ZERO and array.dtype.kind in "bu":
        return ~array
    return array


# ------------------------------------------------------------------------------------------ pixel size


def _tiff_pixel_size(path: Path) -> float | None:
    with opened(path) as series:
        page = series[0].keyframe
        file = page.parent
        if file.is_ome:
            return _ome_pixel_size(file.ome_metadata or "")
        tags = {
            name: page.tags[name].value for name in ("XResolution", "ResolutionUnit") if name in page.tags
        }
        if "XResolution" not in tags:
            return None
        per_pixel = tags["XResolution"][1] / tags["XResolution"][0]
        unit = {2: "inch", 3: "cm"}.get(int(tags.get("ResolutionUnit", 1)), "")
        if file.is_imagej:
            unit = str((file.imagej_metadata or {}).get("unit", unit))
        return per_pixel * _MICROMETRES[unit] if unit in _MICROMETRES else None


def _ome_pixel_size(text: str) -> float | None:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    found = dict(re.findall(r'(PhysicalSizeX(?:Unit)?)="([^"]*)"', pixels[0])) if pixels else {}
    unit = found.get("PhysicalSizeXUnit", "µm")
    if "PhysicalSizeX" not in found or unit not in _MICROMETRES:
        return None
    return float(found["PhysicalSizeX"]) * _MICROMETRES[unit]


def _dots_pixel_size(path: Path) -> float | None:
    with Image.open(path) as image:
        dots = image.info.get("dpi")
    return _MICROMETRES["inch"] / float(dots[0]) if dots else None


def pixel_size(path: Path) -> float | None:
    """The width of a pixel in micrometres; None where the file does not say, or says no likely one."""
    try:
        found = _tiff_pixel_size(path) if is_tiff(path) else _dots_pixel_size(path)
    except (KitError, ZeroDivisionError, *images.UNREADABLE):
        return None
    return found if found is not None and 0 < found <= _LARGEST_PIXEL else None
