"""The one frame of an image of several channels and planes that a configuration chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffPageSeries

from kitlib import files
from kitlib.data import images, tiff
from kitlib.data.config import Finding, Findings, ReadingConfig
from kitlib.data.tiff import Stack
from kitlib.errors import KitError
from kitlib.records import Frame

LOSSY_LABELS = (
    "is compressed lossily (JPEG or alike), which changes the numbers of cells; save label images as PNG, or "
    "as TIFF without lossy compression"
)


class Grey(NamedTuple):
    """The pixels of a frame in the file's numbers, (H, W), and how many numbers were not finite."""

    pixels: NDArray
    not_finite: int


class Page(NamedTuple):
    """One of the pictures in a file.

    Attributes:
        name: what tells it from the file's others: "p0003" for a plane, "c1" for a channel, "p0003_c1" for
            both; "" where there are no others.
        reading: chooses it.
    """

    name: str
    reading: ReadingConfig
    height: int
    width: int


def pages(path: Path, reading: ReadingConfig) -> list[Page]:
    """The pictures of a file that a configuration leaves: each plane and channel where it chooses none.

    Args:
        path: an image; of other formats than TIFF it is one picture.
        reading: its ``plane``, ``projection`` and ``channel`` are kept.

    Raises:
        KitError: no image, cut short, or without the plane or channel that is chosen.

    Example:
        A TIFF file of three slices in two channels has six pictures; ``ReadingConfig(channel=0)`` leaves
        "p0000", "p0001" and "p0002", and ``ReadingConfig(channel=0, projection="max")`` one, "".
    """
    if not tiff.is_tiff(path):
        return [Page("", reading, *images.whole_size(path))]
    with tiff.opened(path) as series:
        stack = _stack(path, series, reading)
    planes, channels = stack.count(stack.plane_axes), stack.count(stack.channel_axes)
    if planes > 1 and reading.plane is None and reading.projection is None:
        chosen = [(f"p{number:04d}", replace(reading, plane=number)) for number in range(planes)]
    else:
        chosen = [("", reading)]
    if channels > 1 and reading.channel is None:
        chosen = [
            ("_".join(filter(None, (name, f"c{number}"))), replace(one, channel=number))
            for name, one in chosen
            for number in range(channels)
        ]
    _choice(path, stack, chosen[0][1])
    return [Page(name, one, *stack.size) for name, one in chosen]


def size(path: Path, reading: ReadingConfig) -> tuple[int, int]:
    """Height and width of the frame that ``read_frame`` reads, without reading its pixels.

    Raises:
        KitError: no image, cut short, or several planes or channels without a choice among them.
    """
    if not tiff.is_tiff(path):
        return images.whole_size(path)
    with tiff.opened(path) as series:
        stack = _stack(path, series, reading)
        _choice(path, stack, reading)
        return stack.size


def read_frame(path: Path, reading: ReadingConfig) -> Grey:
    """The chosen plane and channel of an image; colours become luminance.

    Numbers that are not finite are replaced, see ``images.finite``.

    Raises:
        KitError: as ``size``; or the package that reads the file's compression is missing.
    """
    if not tiff.is_tiff(path):
        pixels = images.read_pixels(path)
        return Grey(_from_colours(path, pixels, reading) if pixels.ndim == 3 else pixels, 0)
    found = _read(path, reading)
    if found.colour:
        return Grey(_from_colours(path, found.pixels, reading), found.not_finite)
    return Grey(_projected(np.moveaxis(found.pixels, -1, 0), found.channel), found.not_finite)


def read_channels(path: Path, reading: ReadingConfig) -> NDArray:
    """All channels of the chosen plane, (H, W) or (H, W, C), in the file's numbers and without transparency.

    Numbers that are not finite are replaced, see ``images.finite``.

    Args:
        path: an image.
        reading: chooses the plane; a ``channel`` out of pages of unknown meaning makes all pages channels.

    Raises:
        KitError: as ``read_frame``.
    """
    if not tiff.is_tiff(path):
        pixels = images.read_pixels(path)
        return pixels[..., :3] if pixels.ndim == 3 else pixels
    found = _read(path, reading)
    pixels = found.pixels[..., :3] if found.colour else found.pixels
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


class _Plane(NamedTuple):
    """A plane of a TIFF file, (H, W, C), turned; whether C are colours, else the channel to take."""

    pixels: NDArray
    colour: bool
    channel: int | str
    not_finite: int


def _read(path: Path, reading: ReadingConfig) -> _Plane:
    with tiff.opened(path) as series:
        stack = _stack(path, series, reading)
        plane, channel = _choice(path, stack, reading)
        if isinstance(plane, int):
            array = tiff.plane(path, series, stack, plane)
        else:
            array = tiff.ordered(tiff.pixels(path, series, stack), stack)
        not_finite = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
        array = images.finite(array, path)
        if isinstance(plane, str):
            array = _projected(array, plane)
        array = np.ascontiguousarray(tiff.in_colours(array, series))
    colour = stack.colour and "C" not in stack.axes
    return _Plane(images.turned(array, stack.orientation), colour, channel, not_finite)


def read_labels(path: Path, reading: ReadingConfig) -> NDArray:
    """The numbers of a TIFF label image, (H, W) or (H, W, samples), turned as its orientation says.

    Args:
        path: a TIFF file.
        reading: its ``plane`` is taken where there are several.

    Raises:
        KitError: lossy compression, several pages without a choice, or as ``read_frame``.
    """
    with tiff.opened(path) as series:
        stack = tiff.stack(path, series)
        if stack.lossy:
            raise KitError(f"{path} {LOSSY_LABELS}")
        pages = stack.count(stack.plane_axes + "C")
        if pages > 1 and (reading.plane is None or reading.plane >= pages):
            raise KitError(
                f"{path} has {pages} pages; choose one with plane (0 to {pages - 1}), or save each as a "
                "label image of its own"
            )
        array = tiff.ordered(tiff.pixels(path, series, stack), stack)
        array = np.moveaxis(array, -1, 1).reshape(pages, -1, *array.shape[1:3]) if not stack.colour else array
        array = array[reading.plane or 0 if pages > 1 else 0]
        array = array if stack.colour else np.moveaxis(array, 0, -1)
        return images.turned(array[..., 0] if array.shape[-1] == 1 else array, stack.orientation)


def is_plain(path: Path, reading: ReadingConfig) -> bool:
    """Whether ``images.read_image`` reads the chosen frame at once: 8 bits, one page, not turned."""
    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "P")
            colour = image.mode in ("RGB", "RGBA") and not isinstance(reading.channel, int)
            deep, pages = "16" in str(image.tile), getattr(image, "n_frames", 1)
        return (grey or (colour and not deep)) and pages == 1 and images.orientation(path) == 1
    except images.UNREADABLE:
        return False


# ------------------------------------------------------------------------------------------ choices


def _stack(path: Path, series: Sequence[TiffPageSeries], reading: ReadingConfig) -> Stack:
    """What the file holds; pages of unknown meaning are channels where a channel is chosen, and no plane."""
    stack = tiff.stack(path, series)
    by_channel = reading.channel is not None and reading.plane is None and reading.projection is None
    if by_channel and _may_be_channels(stack):
        return stack._replace(axes=stack.axes.replace("I", "C").replace("Q", "C"))
    return stack


def _may_be_channels(stack: Stack) -> bool:
    """Whether the file has no channels, but pages of unknown meaning."""
    return not (stack.colour or stack.channel_axes) and set(stack.plane_axes) <= set("IQ")


def _choice(path: Path, stack: Stack, reading: ReadingConfig) -> tuple[int | str, int | str]:
    """The plane, or the projection of all, and the channel, or "mean"; 0 where there is one alone.

    Raises:
        KitError: there are several, and the configuration chooses none or one that is not there.
    """
    planes, channels = stack.count(stack.plane_axes), stack.count(stack.channel_axes)
    plane: int | str | None = reading.plane if reading.plane is not None else reading.projection
    channel: int | str | None = "mean" if reading.channel == "grey" else reading.channel
    plane, channel = (0 if planes == 1 else plane), (0 if channels == 1 else channel)
    wanted = []
    if channels > 1 and not _is_among(channel, channels):
        wanted.append(f"channel (0 to {channels - 1}, or grey)")
    if planes > 1 and not _is_among(plane, planes):
        wanted.append(f"plane (0 to {planes - 1}) or projection (max or mean)")
        wanted += ["channel, if they are channels"] if _may_be_channels(stack) else []
    if wanted or plane is None or channel is None:
        raise KitError(f"{path} holds several pictures (axes: {stack}); choose by {', and '.join(wanted)}")
    return plane, channel


def _is_among(choice: int | str | None, count: int) -> bool:
    return isinstance(choice, str) or (choice is not None and choice < count)


def _from_colours(path: Path, pixels: NDArray, reading: ReadingConfig) -> NDArray:
    """(H, W) of (H, W, channels): the chosen channel, or luminance."""
    if not isinstance(reading.channel, int):
        return images.luminance(pixels)
    if reading.channel >= pixels.shape[2]:
        raise KitError(f"{path} has {pixels.shape[2]} channels; choose channel 0 to {pixels.shape[2] - 1}")
    return pixels[..., reading.channel]


def _projected(array: NDArray, choice: int | str) -> NDArray:
    """One of the arrays along the first axis, or the "max" or "mean" of all, in their type."""
    if isinstance(choice, int):
        return array[choice]
    if choice == "max":
        return array.max(axis=0)
    return images.in_type(array.mean(axis=0), array.dtype)


# ------------------------------------------------------------------------------------------ for training


class Prepared(NamedTuple):
    """Frames whose images training reads at once, and the faults that their pixels had."""

    frames: list[Frame]
    findings: list[Finding]


def prepare(frames: Sequence[Frame], reading: ReadingConfig, cache: Path) -> Prepared:
    """The frames with images of 8 bits, one page and one channel, which ``images.read_image`` reads.

    Other images are converted once, to PNG files in ``cache``, from which a second call takes them. An image
    that cannot be read is left out.

    Args:
        frames: as ``dataset.open_folder`` gives them.
        reading: as there.
        cache: a folder; is made.

    Raises:
        KitError: no image of any frame can be read, or the folder cannot be written.
    """
    findings = Findings(Path())
    prepared = []
    for frame in frames:
        if frame.path is None or is_plain(frame.path, reading):
            prepared.append(frame)
            continue
        with findings.leaving_out(frame.path):
            prepared.append(converted(frame, frame.path, reading, cache, findings))
    if frames and not prepared:
        raise KitError(f"no image can be read: {findings.first_few()}")
    return Prepared(prepared, findings)


def converted(frame: Frame, source: Path, reading: ReadingConfig, cache: Path, findings: Findings) -> Frame:
    """The frame with a PNG file of 8 bits, which is made in ``cache`` if it is not there yet.

    Args:
        frame: has the size of the picture.
        source: the file that holds the picture.
        reading: chooses the picture.
        cache: a folder; is made.
        findings: where numbers are reported that are not finite.

    Raises:
        KitError: the picture cannot be read or has another size, or the file cannot be written.
    """
    status = source.stat()
    choice = repr((reading.channel, reading.plane, reading.projection))
    made_of = files.fingerprint(str(source.resolve()), str(status.st_size), str(status.st_mtime_ns), choice)
    path = cache / f"{frame.id[:40]}-{made_of}.png"
    noted = path.with_suffix(".txt")
    if not path.is_file():
        pixels, not_finite = read_frame(source, reading)
        if pixels.shape != (frame.height, frame.width):
            raise KitError(f"{source} is {pixels.shape[1]} wide, {pixels.shape[0]} high, unlike its header")
        if not_finite:
            files.write_text(noted, str(not_finite))
        with files.atomic(path) as temporary:
            Image.fromarray(images.to_8_bit(pixels, source)).save(temporary)
    if noted.is_file():
        count = int(noted.read_text())
        findings.add(source, f"holds {count} numbers that are not finite", "the smallest or largest taken")
    return replace(frame, path=path)
