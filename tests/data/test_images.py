"""Reading image files as grey frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib.data.images import image_size, read_image, read_pixels
from kitlib.errors import KitError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_levels_come_back_as_they_are(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a{suffix}", RAMP), 6, 8), RAMP)


def test_colours_become_luminance(tmp_path: Path) -> None:
    pixels = np.zeros((1, 4, 3), np.uint8)
    pixels[0, [0, 1, 2], [0, 1, 2]] = 200
    pixels[0, 3] = 200
    assert read_image(save(tmp_path / "a.png", pixels)).tolist() == [[60, 117, 23, 200]]


def test_grey_saved_as_colour_comes_back_exactly(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", np.dstack([RAMP] * 3))), RAMP)


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[10, 90]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_order_and_fill_the_range(tmp_path: Path, suffix: str, channels: int) -> None:
    """Faint values below 256, which are lost where only the high byte is read."""
    pixels = (RAMP.astype(np.uint16) * 5)[..., None].repeat(channels, 2).squeeze()
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels)
    grey = read_image(tmp_path / f"a{suffix}")
    assert (grey.dtype, grey.shape) == (np.uint8, (6, 8))
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    assert (grey.min(), grey.max()) == (0, 255)


def test_the_file_as_stored(tmp_path: Path) -> None:
    pixels = RAMP.astype(np.uint16) * 1000
    assert cv2.imwrite(str(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels)


def test_the_size_is_read_from_the_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((300, 200), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    assert image_size(path) == (300, 200)


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / "a.png", rng.integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(KitError, match=r"a\.png cannot be read .* copy or download it again"):
        read_image(path)


def test_a_tiff_whose_header_claims_rows_that_it_lacks_is_refused(tmp_path: Path) -> None:
    """Pillow would read a million black rows."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAMP.astype(np.uint16))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(1 << 20)
    with pytest.raises(
        KitError, match=r"a\.tif cannot be read \(8 x 1048576 pixels are more than it holds\)"
    ):
        read_image(path)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("cells")
    with pytest.raises(KitError, match=r"a\.png is not an image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(KitError, match=r"b\.png does not exist"):
        read_image(tmp_path / "b.png")


def test_another_size_than_the_table_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"is 8 x 6 pixels but its table says 6 x 8"):
        read_image(save(tmp_path / "a.png", RAMP), height=8, width=6)


def claim(path: Path, side: int) -> Path:
    """Let a PNG's header claim a size."""
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    return path


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path: Path, side: int) -> None:
    path = claim(save(tmp_path / "a.png", np.zeros((8, 9), np.uint8)), side)
    for read in (image_size, read_image):
        with pytest.raises(KitError, match=r"a\.png "):
            read(path)


def test_memory_that_is_too_small_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", np.zeros((8, 9), np.uint8))
    monkeypatch.setattr(np, "asarray", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(KitError, match=r"not enough memory to read \S+a\.png"):
        read_pixels(path)
