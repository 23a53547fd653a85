"""Synthetic frames: exact masks, believable numbers, one picture a seed."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import measure

from kitlib.data import synthetic
from kitlib.data.synthetic.cultures import CULTURES
from kitlib.errors import KitError
from kitlib.masks import rle

TYPES = ("cort", "shsy5y", "astro")
# Of the competition: cells in a 520 x 704 frame, and their mean area in pixels.
REAL = {"cort": (34, 240), "shsy5y": (337, 225), "astro": (80, 906)}
FULL = 520 * 704


@pytest.fixture(scope="module")
def frames() -> dict[str, list]:
    """Eight 256 x 256 frames of each type."""
    return {kind: [synthetic.frame(kind, seed, (256, 256)) for seed in range(8)] for kind in TYPES}


@pytest.mark.parametrize("kind", sorted(CULTURES))
@pytest.mark.parametrize("size", [(130, 97), (64, 64), (200, 311)])
def test_every_mask_is_one_component_without_holes(kind: str, size: tuple[int, int]) -> None:
    picture, cells = synthetic.frame(kind, 5, size)
    assert picture.shape == size
    assert picture.dtype == np.uint8
    assert len(cells) >= 4
    for cell in cells:
        assert rle.height_width(cell.mask) == size
        assert cell.category == kind
        assert cell.score is None
        mask = np.pad(rle.to_mask(cell.mask), 1)
        assert mask.sum() >= 40
        assert measure.label(mask, connectivity=1).max() == 1
        assert measure.euler_number(mask, connectivity=1) == 1  # one component, no hole


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_frames_still_hold_four_cells(kind: str, seed: int) -> None:
    assert len(synthetic.frame(kind, seed, (64, 64))[1]) >= 4


@pytest.mark.parametrize("kind", TYPES)
def test_counts_follow_the_frame_area(kind: str, frames: dict) -> None:
    count = np.mean([len(cells) for _, cells in frames[kind]])
    assert count == pytest.approx(REAL[kind][0] * 256**2 / FULL, rel=0.35)


@pytest.mark.parametrize("kind", TYPES)
def test_areas_are_near_the_real_ones(kind: str, frames: dict) -> None:
    areas = np.concatenate([rle.areas([c.mask for c in cells]) for _, cells in frames[kind]])
    assert areas.mean() == pytest.approx(REAL[kind][1], rel=0.25)
    assert areas.std() > 0.3 * areas.mean()  # small and large ones


@pytest.mark.parametrize("kind", TYPES)
def test_grey_levels_are_near_the_real_ones(kind: str, frames: dict) -> None:
    for picture, _ in frames[kind]:
        assert picture.mean() == pytest.approx(128, abs=0.6)
        assert 5 < picture.std() < 20
        assert picture.min() < 110
        assert picture.max() > 150


@pytest.mark.parametrize("kind", TYPES)
def test_cells_stand_out_dark_within_a_bright_halo(kind: str, frames: dict) -> None:
    """A cell's core is darker than its rim: nearly every cell can be seen by a careful eye."""
    seen = []
    for picture, cells in frames[kind]:
        union = rle.to_mask(rle.merge([c.mask for c in cells]))
        for cell in cells:
            mask = rle.to_mask(cell.mask)
            inside = measure.regionprops(measure.label(mask, connectivity=1))[0].bbox
            rows, columns = slice(inside[0], inside[2]), slice(inside[1], inside[3])
            distance = _inwards(mask)[rows, columns]
            core = picture[rows, columns][distance > 2]
            rim = picture[rows, columns][(distance == 1) & union[rows, columns]]
            if len(core):
                seen.append(float(rim.mean()) - float(core.mean()))
    assert np.mean(np.array(seen) > 4) > 0.9
    assert np.median(seen) > 10


def _inwards(mask: np.ndarray) -> np.ndarray:
    """Pixels to the edge, by peeling off one 4-connected layer at a time."""
    depth, layer = np.zeros(mask.shape, int), np.pad(mask, 1)
    while layer.any():
        depth += layer[1:-1, 1:-1]
        core = layer[1:-1, 1:-1] & layer[:-2, 1:-1] & layer[2:, 1:-1] & layer[1:-1, :-2] & layer[1:-1, 2:]
        layer = np.pad(core, 1)
    return depth


def test_some_masks_overlap_but_only_a_little(frames: dict) -> None:
    shares = []
    for picture, cells in frames["shsy5y"]:
        cover = np.zeros(picture.shape, int)
        for cell in cells:
            cover += rle.to_mask(cell.mask)
        shares.append((cover > 1).sum() / (cover > 0).sum())
    assert max(shares) > 0
    assert max(shares) < 0.06


def test_one_seed_one_picture() -> None:
    one, two, other = (synthetic.frame("cort", seed, (96, 120)) for seed in (1, 1, 2))
    assert np.array_equal(one[0], two[0])
    assert one[1] == two[1]
    assert not np.array_equal(one[0], other[0])


def test_kinds_of_one_seed_differ() -> None:
    pictures = [synthetic.frame(kind, 1, (96, 96))[0] for kind in CULTURES]
    assert len({picture.tobytes() for picture in pictures}) == len(CULTURES)


def test_a_full_frame_has_as_many_cells_as_a_real_one() -> None:
    picture, cells = synthetic.frame("shsy5y", 1)
    assert picture.shape == (520, 704)
    assert 150 < len(cells) < 600


@pytest.mark.parametrize(
    ("kind", "seed", "size", "words"),
    [
        ("cort", 0, (63, 256), "63x256"),  # a side too small
        ("cort", 0, (256, 5000), "256x5000"),  # a side too large
        ("cort", 0, (0, 0), "0x0"),
        ("cort", -1, (256, 256), "seed -1"),
        ("cortt", 0, (256, 256), "did you mean 'cort'"),
    ],
)
def test_bad_arguments_are_refused(kind: str, seed: int, size: tuple[int, int], words: str) -> None:
    with pytest.raises(KitError, match=words):
        synthetic.frame(kind, seed, size)
