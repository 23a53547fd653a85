"""LZW streams of TIFF files: whole ones pass, and those on which imagecodecs crashes are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib.data import lzw
from kitlib.data.images import read_image

RNG = np.random.default_rng(0)
PICTURES = {
    "noise": RNG.integers(0, 65_535, (300, 400), np.uint16),
    "flat": np.zeros((700, 900), np.uint16),
    "ramp": np.arange(90_000, dtype=np.uint16).reshape(300, 300),
    "one pixel": np.ones((1, 1), np.uint16),
}


def check(path: Path) -> None:
    with tifffile.TiffFile(path) as file:
        lzw.check_pages(file.pages)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("options", [{}, {"predictor": True}, {"tile": (64, 64)}, {"rowsperstrip": 7}])
def test_whole_streams_pass(tmp_path: Path, name: str, options: dict) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PICTURES[name], compression="lzw", **options)
    check(path)


def test_streams_of_libtiff_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = RNG.integers(0, 99, (500, 600), np.uint8)
    Image.fromarray(pixels).save(path, compression="tiff_lzw")
    check(path)
    np.testing.assert_array_equal(read_image(path), pixels)


def packed(*codes: int) -> bytes:
    """A stream of codes of nine bits."""
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


@pytest.mark.parametrize(
    ("codes", "whole"),
    [
        ((256, 7, 258, 259, 257), True),  # an entry may be used as soon as it is completed
        ((256, 7, 259, 257), False),  # not before
        ((256, 258, 257), False),  # after the table was emptied it has no entry
        ((256, 7, 7, 256, 258, 257), False),
        ((256, 7, 7, 256, 7, 258, 257, 511), True),  # what follows the end is not read
        ((256, 256, 257), True),
    ],
)
def test_every_code_is_in_the_table(codes: tuple[int, ...], whole: bool) -> None:
    if whole:
        lzw._check(packed(*codes))
        return
    with pytest.raises(ValueError, match="its LZW stream is damaged"):
        lzw._check(packed(*codes))


def test_streams_with_the_lowest_bit_first_are_refused() -> None:
    with pytest.raises(ValueError, match="of the kind before TIFF 6"):
        lzw._check(bytes([0, 1, 0, 0]))


def test_a_table_that_is_never_emptied_is_damaged() -> None:
    with pytest.raises(ValueError, match="its LZW stream is damaged"):
        lzw._check(bytes(9 * 4096))
