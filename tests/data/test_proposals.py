"""Scales, crops, anchors and grey levels from cells whose size is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kitlib.data import proposals
from kitlib.data.images import grey_shares, read_image
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def frame(folder: Path, name: str, sides: list[int], grey: tuple[int, int] = (100, 120)) -> Frame:
    """Square cells in a row, on an image of 100 x 400 of which half has each grey level."""
    pixels = np.full((100, 400), grey[0], np.uint8)
    pixels[:, 200:] = grey[1]
    Image.fromarray(pixels).save(folder / f"{name}.png")
    cells = []
    for number, side in enumerate(sides):
        mask = np.zeros((100, 400), bool)
        mask[:side, 40 * number : 40 * number + side] = True
        cells.append(Cell(rle.from_mask(mask), "cell"))
    return Frame(name, folder / f"{name}.png", 100, 400, tuple(cells))


def disc_diameter(side: int) -> float:
    return float(np.sqrt(4 / np.pi) * side)


@pytest.mark.parametrize(
    ("side", "scale"),
    [
        (12, 24 / disc_diameter(12)),  # small cells are enlarged
        (30, 1.0),  # in between, frames stay as they are
        (96, 48 / disc_diameter(96)),  # large cells are reduced
        (3, 4.0),  # by no more than four
    ],
)
def test_the_median_cell_comes_to_a_size_that_suits_the_network(tmp_path, side, scale):
    found = proposals.propose([frame(tmp_path, "a", [side])])
    assert found.scale == pytest.approx(scale, abs=0.006)
    low, high = found.training_scales
    assert low < found.scale < high
    assert found.scales(1) == (found.scale,)
    one, other = found.scales(2)
    assert other / one == pytest.approx(1.4, abs=0.02)
    assert np.sqrt(one * other) == pytest.approx(found.scale, rel=0.01)


def test_anchors_begin_at_the_small_cells_and_double(tmp_path):
    found = proposals.propose([frame(tmp_path, "a", [10, 20, 20, 20, 20, 20, 20, 20, 20, 20])])
    assert found.scale == pytest.approx(24 / disc_diameter(20), abs=0.006)
    (finest,), *others = found.anchor_sizes
    assert 8 <= finest <= 20 * found.scale
    assert others == [(finest * 2**k,) for k in range(1, 5)]


def test_a_crop_holds_nearly_every_cell_and_no_more_than_a_frame(tmp_path):
    found = proposals.propose([frame(tmp_path, "a", [30, 30, 30, 30, 38])])
    assert found.crop == 64  # 1.5 times 38, rounded up to 32s
    assert (found.crop_of(32), found.crop_of(256), found.crop_of(2000)) == (64, 256, 544)
    assert found.largest == round(400 * found.training_scales[1])


def test_grey_levels_are_those_within_images(tmp_path):
    """Two images of means 110 and 40, each 10 around its mean: the difference of the means does not count."""
    frames = [frame(tmp_path, "a", [30]), frame(tmp_path, "b", [30], grey=(30, 50))]
    found = proposals.propose(frames)
    assert (found.pixel_mean, found.pixel_std) == (75.0, 10.0)
    flat = proposals.propose([frame(tmp_path, "c", [30], grey=(9, 9))])
    assert (flat.pixel_mean, flat.pixel_std) == (9.0, 1.0)


def test_grey_levels_that_are_known_are_not_read_again(tmp_path):
    frames = [frame(tmp_path, "a", [30]), frame(tmp_path, "b", [30], grey=(30, 50))]
    expected = proposals.propose(frames)
    shares = [grey_shares(read_image(each.path)) for each in frames]
    for each in frames:
        each.path.unlink()
    assert proposals.propose(frames, shares) == expected


def test_the_summary_has_a_line_for_each(tmp_path):
    lines = proposals.propose([frame(tmp_path, "a", [30])]).summary.splitlines()
    assert [line.split()[0] for line in lines] == ["scales", "crop", "anchors", "grey_levels"]
    assert lines[0].startswith("scales       0.75 to 1.33             the median cell is 34 pixels across")


def test_without_cells_there_is_nothing_to_propose(tmp_path):
    with pytest.raises(KitError, match="no image has a cell"):
        proposals.propose([frame(tmp_path, "a", [])])
