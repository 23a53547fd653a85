"""Images of several channels and planes: each axis, the choice among them, and the files for training."""

from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib.data import images, planes, tiff
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.records import Frame

# Channel c of plane z holds 20 c + z, and its first pixel 100 more.
STACK = np.add.outer(20 * np.arange(2), np.arange(3))[..., None, None] + np.zeros((4, 5), int)
STACK[..., 0, 0] += 100


def write(path, array, dtype=np.uint16, **options):
    tifffile.imwrite(path, np.asarray(array).astype(dtype), **{"photometric": "minisblack", **options})
    return path


@pytest.fixture(params=["imagej", "ome", "big-endian", "bigtiff"])
def stack(request, tmp_path):
    """A file of two channels and three planes."""
    path = tmp_path / "a.tif"
    if request.param == "imagej":
        return write(path, STACK.swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"})
    if request.param == "ome":
        return write(tmp_path / "a.ome.tif", STACK, metadata={"axes": "CZYX"})
    options = {"byteorder": ">"} if request.param == "big-endian" else {"bigtiff": True}
    return write(path, STACK, metadata={"axes": "CZYX"}, ome=True, **options)


@pytest.mark.parametrize(
    ("choice", "first", "other"),
    [
        ({"channel": 0, "plane": 0}, 100, 0),
        ({"channel": 1, "plane": 2}, 122, 22),
        ({"channel": 1, "projection": "max"}, 122, 22),
        ({"channel": 1, "projection": "mean"}, 121, 21),
        ({"channel": "grey", "plane": 0}, 110, 10),
        ({"channel": "grey", "projection": "mean"}, 111, 11),
    ],
)
def test_channel_and_plane(stack, choice, first, other):
    reading = ReadingConfig(**choice)
    pixels, not_finite = planes.read_frame(stack, reading)
    assert (pixels.dtype.kind, not_finite) == ("u", 0)
    assert planes.size(stack, reading) == pixels.shape == (4, 5)
    assert pixels[0, 0] == first
    assert set(pixels.ravel()[1:].tolist()) == {other}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({}, r"choose by channel \(0 to 1, or grey\), and plane \(0 to 2\) or projection \(max or mean\)"),
        ({"channel": 0}, r"choose by plane \(0 to 2\) or projection"),
        ({"plane": 0}, r"choose by channel \(0 to 1, or grey\)$"),
        ({"channel": 2, "plane": 0}, r"choose by channel \(0 to 1"),
        ({"channel": 0, "plane": 3}, r"choose by plane \(0 to 2\)"),
    ],
)
def test_without_a_choice_the_axes_are_listed(stack, choice, wanted):
    for read in (planes.size, planes.read_frame):
        with pytest.raises(KitError, match=wanted) as error:
            read(stack, ReadingConfig(**choice))
        assert any(
            axes in str(error.value) for axes in ("axes: Z 3, C 2, Y 4, X 5", "axes: C 2, Z 3, Y 4, X 5")
        )


def test_plane_and_projection_exclude_each_other():
    with pytest.raises(KitError, match="give plane or projection, not both"):
        ReadingConfig(plane=1, projection="max")


@pytest.mark.parametrize("choice", [{"channel": 0}, {"channel": 1}, {}])
def test_pages_and_all_channels_of_each(stack, choice):
    pages = planes.pages(stack, ReadingConfig(**choice))
    channels = 1 if choice else 2
    assert len(pages) == 3 * channels
    for number, page in enumerate(pages):
        plane, channel = divmod(number, channels)
        assert page.name == f"p{plane:04d}" + ("" if choice else f"_c{channel}")
        assert (page.height, page.width) == (4, 5)
        both = planes.read_channels(stack, page.reading)
        assert np.array_equal(both, np.moveaxis(STACK[:, plane], 0, -1))
        channel = choice.get("channel", channel)
        assert np.array_equal(planes.read_frame(stack, page.reading).pixels, both[..., channel])


def test_all_channels_of_colours_and_of_pages_of_unknown_meaning(tmp_path):
    colours = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    Image.fromarray(colours, "RGBA").save(tmp_path / "a.png")
    Image.fromarray(colours, "RGBA").save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert [page.name for page in planes.pages(tmp_path / name, ReadingConfig())] == [""]
        assert np.array_equal(planes.read_channels(tmp_path / name, ReadingConfig()), colours[..., :3])
    path = write(tmp_path / "b.tif", STACK[1])
    assert np.array_equal(planes.read_channels(path, ReadingConfig(plane=2)), STACK[1, 2])
    assert np.array_equal(planes.read_channels(path, ReadingConfig(channel=2)), np.moveaxis(STACK[1], 0, -1))


def test_a_page_is_read_without_the_others(tmp_path):
    path = write(tmp_path / "a.tif", STACK[1], compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    for plane in (0, 2):
        assert np.array_equal(planes.read_channels(path, ReadingConfig(plane=plane)), STACK[1, plane])
    with pytest.raises(KitError, match="cannot be read"):
        planes.read_channels(path, ReadingConfig(plane=1))


def test_two_axes_of_unknown_meaning(tmp_path):
    path = write(tmp_path / "a.tif", STACK)
    assert planes.read_frame(path, ReadingConfig(plane=4)).pixels[1, 1] == 21


@pytest.mark.parametrize("pages", ["one series", "series a page", "by Pillow"])
def test_pages_of_unknown_meaning(tmp_path, pages):
    path = tmp_path / "a.tif"
    if pages == "one series":
        write(path, STACK[1])
    elif pages == "series a page":
        with tifffile.TiffWriter(path) as file:
            for page in STACK[1]:
                file.write(page.astype(np.uint16))
    else:
        first, *others = [Image.fromarray(page.astype(np.uint16)) for page in STACK[1]]
        first.save(path, save_all=True, append_images=others)
    with pytest.raises(KitError, match=r"plane \(0 to 2\) or projection \(max or mean\), and channel, if"):
        planes.size(path, ReadingConfig())
    with pytest.raises(KitError, match=r"holds 3 pages; choose one with plane, or a projection"):
        images.read_image(path)
    for reading in (ReadingConfig(plane=2), ReadingConfig(channel=2)):
        assert planes.read_frame(path, reading).pixels[1, 1] == 22


def test_images_of_several_sizes_in_a_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((4, 5), np.uint8))
        file.write(np.zeros((2, 3), np.uint8))
    with pytest.raises(KitError, match=r"holds images of several sizes .*save each as a file of its own"):
        planes.size(tmp_path / "a.tif", ReadingConfig(plane=0))


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pages_that_lead_back_to_one_another(tmp_path, bigtiff, byteorder):
    path = write(tmp_path / "a.tif", STACK[0], bigtiff=bigtiff, byteorder=byteorder)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset
        form = file.tiff
    data = bytearray(path.read_bytes())
    count = int.from_bytes(data[last : last + form.tagnosize], "little" if byteorder == "<" else "big")
    place = last + form.tagnosize + count * form.tagsize
    data[place : place + form.offsetsize] = struct.pack(form.offsetformat, first)
    path.write_bytes(data)
    with pytest.raises(KitError, match="its pages lead back to one another"):
        planes.size(path, ReadingConfig(plane=0))


def test_a_pyramid_is_its_largest_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(np.full((64, 64), 7, np.uint8), subifds=1)
        file.write(np.zeros((32, 32), np.uint8), subfiletype=1)
    assert planes.read_frame(tmp_path / "a.ome.tif", ReadingConfig()).pixels.tolist() == [[7] * 64] * 64


@pytest.mark.parametrize("layout", ["png", "contiguous", "planes"])
def test_colours(tmp_path, layout):
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 0] = (10, 20, 30)
    path = tmp_path / f"a.{'png' if layout == 'png' else 'tif'}"
    if layout == "png":
        Image.fromarray(colours).save(path)
    elif layout == "contiguous":
        write(path, colours, np.uint8, photometric="rgb")
    else:
        write(path, colours.transpose(2, 0, 1), np.uint8, photometric="rgb", planarconfig="separate")
    for choice, value in {None: 18, "grey": 18, 0: 10, 1: 20, 2: 30}.items():
        assert planes.read_frame(path, ReadingConfig(channel=choice)).pixels[0, 0] == value
    with pytest.raises(KitError, match="has 3 channels; choose channel 0 to 2"):
        planes.read_frame(path, ReadingConfig(channel=3))


def test_colours_of_channels(tmp_path):
    array = np.zeros((2, 4, 5, 3), np.uint8)
    array[1, 0, 0] = (10, 20, 30)
    path = write(tmp_path / "a.ome.tif", array, np.uint8, photometric="rgb", metadata={"axes": "CYXS"})
    assert planes.read_frame(path, ReadingConfig(channel=1)).pixels[0, 0] == 18


def test_samples_that_are_no_colours_are_channels(tmp_path):
    path = write(tmp_path / "a.tif", np.arange(24).reshape(2, 3, 4), np.uint8, planarconfig="contig")
    with pytest.raises(KitError, match=r"channel \(0 to 3, or grey\)"):
        planes.size(path, ReadingConfig())
    assert planes.read_frame(path, ReadingConfig(channel=3)).pixels.tolist() == [[3, 7, 11], [15, 19, 23]]


def test_white_may_be_zero_and_palettes_are_resolved(tmp_path):
    path = write(tmp_path / "a.tif", [[0, 255]], np.uint8, photometric="miniswhite")
    assert planes.read_frame(path, ReadingConfig()).pixels.tolist() == [[255, 0]]
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.save(tmp_path / "b.tif")
    assert planes.read_frame(tmp_path / "b.tif", ReadingConfig()).pixels.tolist() == [[10, 90]]


@pytest.mark.parametrize("compression", ["lzw", "zstd", "zlib", "jpeg2000", "packbits"])
def test_compressions(tmp_path, compression):
    path = write(tmp_path / "a.tif", STACK[0, 0], compression=compression)
    assert np.array_equal(planes.read_frame(path, ReadingConfig()).pixels, STACK[0, 0])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", STACK[0], compression="zstd")
    one_page = write(tmp_path / "b.tif", STACK[0, 0], compression="lzw")

    def missing(*_, **__):
        raise ValueError("<COMPRESSION.ZSTD: 50000> requires the 'imagecodecs' package")

    for kind in (tifffile.TiffPageSeries, tifffile.TiffPage, tifffile.TiffFrame):
        monkeypatch.setattr(kind, "asarray", missing)
    with pytest.raises(
        KitError, match=r"a\.tif is compressed; reading it needs a package: pip install imagec"
    ):
        planes.read_frame(path, ReadingConfig(plane=0))
    # Pillow reads it.
    assert np.array_equal(planes.read_frame(one_page, ReadingConfig()).pixels, STACK[0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    path = write(tmp_path / "a.tif", stored, np.uint8, extratags=[(images.ORIENTATION, "H", 1, orientation)])
    # OpenCV turns as Exif says.
    Image.fromarray(stored.repeat(16, 0).repeat(16, 1)).save(tmp_path / "a.jpg", exif=exif, quality=100)
    shown = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_GRAYSCALE)[8::16, 8::16].round(-1)
    for name in ("a.png", "a.tif"):
        path = tmp_path / name
        assert np.array_equal(planes.read_frame(path, ReadingConfig()).pixels, shown)
        assert np.array_equal(images.read_image(path), shown)
        assert planes.size(path, ReadingConfig()) == images.image_size(path) == shown.shape
    assert images.image_size(tmp_path / "a.jpg") == (16 * shown.shape[0], 16 * shown.shape[1])


# ------------------------------------------------------------------------------------------ pixel size


def test_pixel_size(tmp_path):
    flat = np.zeros((4, 5), np.uint8)
    metadata = {"axes": "YX", "PhysicalSizeX": 650.0, "PhysicalSizeXUnit": "nm"}
    ome = write(tmp_path / "a.ome.tif", flat, np.uint8, metadata=metadata)
    assert tiff.pixel_size(ome) == pytest.approx(0.65)
    micron = write(
        tmp_path / "b.tif", flat, np.uint8, imagej=True, resolution=(4, 4), metadata={"unit": "um"}
    )
    assert tiff.pixel_size(micron) == pytest.approx(0.25)
    greek = {"unit": "\\u00B5m"}
    assert tiff.pixel_size(
        write(tmp_path / "c.tif", flat, np.uint8, imagej=True, resolution=(4, 4), metadata=greek)
    ) == pytest.approx(0.25)
    by_cm = write(
        tmp_path / "d.tif", flat, np.uint8, resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
    )
    assert tiff.pixel_size(by_cm) == pytest.approx(0.5)


@pytest.mark.parametrize("dots", [72, 96, 300, 600])
def test_a_size_for_printing_is_no_pixel_size(tmp_path, dots):
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name, dpi=(dots, dots))
        assert tiff.pixel_size(tmp_path / name) is None


def test_no_pixel_size(tmp_path):
    assert tiff.pixel_size(write(tmp_path / "a.tif", [[0]], np.uint8)) is None
    (tmp_path / "b.png").write_text("no image")
    assert tiff.pixel_size(tmp_path / "b.png") is None


# ------------------------------------------------------------------------------------------ for training


def test_numbers_that_are_not_finite(tmp_path):
    pixels = np.array([[np.nan, np.inf, -np.inf], [1.0, 2.0, 3.0]])
    path = write(tmp_path / "a.tif", pixels, np.float32)
    found, not_finite = planes.read_frame(path, ReadingConfig())
    assert (found.tolist(), not_finite) == ([[1, 3, 1], [1, 2, 3]], 3)
    assert images.read_image(path).tolist() == [[0, 255, 0], [0, 128, 255]]
    prepared = planes.prepare([Frame("a", path, 2, 3)], ReadingConfig(), tmp_path / "cache")
    assert images.read_image(prepared.frames[0].path).tolist() == [[0, 255, 0], [0, 128, 255]]
    ((file, fault, _),) = prepared.findings
    assert (file, fault) == (str(path), "holds 3 numbers that are not finite")
    assert planes.prepare([Frame("a", path, 2, 3)], ReadingConfig(), tmp_path / "cache") == prepared
    with pytest.raises(KitError, match=r"b\.tif holds no finite number"):
        planes.read_frame(write(tmp_path / "b.tif", [[np.nan]], np.float32), ReadingConfig())


def test_prepared_images(tmp_path, write_image):
    stacked = write(tmp_path / "a.ome.tif", STACK, metadata={"axes": "CZYX"})
    plain = write_image(tmp_path / "b.png", 6, 8)
    frames = [Frame("A__a", stacked, 4, 5), Frame("b", plain, 6, 8), Frame("c", None, 6, 8)]
    prepared, findings = planes.prepare(frames, ReadingConfig(channel=1, plane=0), tmp_path / "cache")
    assert (prepared[1:], findings) == (frames[1:], [])
    path = prepared[0].path
    assert (path.parent, path.suffix) == (tmp_path / "cache", ".png")
    assert replace(prepared[0], path=stacked) == frames[0]
    assert images.read_image(path, 4, 5).tolist() == [[255, 0, 0, 0, 0]] + [[0] * 5] * 3
    times = path.stat().st_mtime_ns
    assert (
        planes.prepare(frames, ReadingConfig(channel=1, plane=0), tmp_path / "cache").frames[0].path == path
    )
    assert path.stat().st_mtime_ns == times
    other = planes.prepare(frames, ReadingConfig(channel=0, plane=0), tmp_path / "cache").frames[0].path
    assert other != path


def test_an_image_that_cannot_be_prepared_is_left_out(tmp_path, write_image):
    stacked = write(tmp_path / "a.tif", STACK[0])
    plain = write_image(tmp_path / "b.png", 6, 8)
    frames = [Frame("a", stacked, 4, 5), Frame("b", plain, 6, 8)]
    prepared, (finding,) = planes.prepare(frames, ReadingConfig(), tmp_path / "cache")
    assert prepared == frames[1:]
    assert (finding.file, finding.action) == (str(stacked), "left out")
    with pytest.raises(KitError, match=r"no image can be read: .*a\.tif holds several pictures"):
        planes.prepare(frames[:1], ReadingConfig(), tmp_path / "cache")
