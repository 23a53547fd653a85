"""Patches against full frames: the same flips, rotations, crops and sizes on N x H x W stacks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitlib.inputs.patch import Patch, PatchCell, crop, flip_x, flip_y, paste, resize, rot90, take
from kitlib.masks import rle
from kitlib.records import Cell, Frame

HEIGHT, WIDTH = 52, 70


def cells(seed: int = 0, number: int = 12) -> np.ndarray:
    """(N, H, W): ellipses, some over the edge, then one pixel, the full frame, a hole, two touching edges."""
    rng = np.random.default_rng(seed)
    full = np.zeros((number + 5, HEIGHT, WIDTH), np.uint8)
    for mask in full[:number]:
        centre = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        axes = int(rng.integers(2, 14)), int(rng.integers(2, 14))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    full[number, 20, 30] = 1
    full[number + 1] = 1
    full[number + 2, 10:40, 12:50] = 1
    full[number + 2, 20:31, 22:35] = 0
    full[number + 3, :9, 40:] = 1
    full[number + 4, 30:, :5] = 1
    return full.astype(bool)


def patch_of(full: np.ndarray, near=(0, 0, WIDTH, HEIGHT), ignore: np.ndarray | None = None) -> Patch:
    """The patch of a noise image with these cells; each cell's label is its number."""
    image = np.random.default_rng(1).integers(0, 256, full.shape[1:], np.uint8)
    numbered = tuple(Cell(rle.from_mask(m), str(i)) for i, m in enumerate(full))
    unknown = None if ignore is None else rle.from_mask(ignore)
    frame = Frame("f", None, *full.shape[1:], numbered, ignore=unknown)
    return take(frame, image, lambda c: int(c.category), near)


def to_full(patch: Patch) -> dict[int, np.ndarray]:
    """Each cell of a patch, by label, as a full (H, W) mask."""
    full = {}
    for cell in patch.cells:
        x0, y0, x1, y1 = cell.box
        assert min(x0, y0) >= 0
        full[cell.label] = np.zeros(patch.size, bool)
        full[cell.label][y0:y1, x0:x1] = cell.mask
    return full


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def assert_same_masks(patch: Patch, full: np.ndarray) -> None:
    """Exactly these masks; empty ones must be missing, or empty."""
    found = to_full(patch)
    for label, mask in enumerate(full):
        np.testing.assert_array_equal(found.get(label, np.zeros(patch.size, bool)), mask)


# -------------------------------------------------------------------------------- exact


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (flip_x, lambda a: a[..., ::-1]),
        (flip_y, lambda a: a[..., ::-1, :]),
        (lambda p: rot90(p, 1), lambda a: np.rot90(a, 1, (-2, -1))),
        (lambda p: rot90(p, 2), lambda a: np.rot90(a, 2, (-2, -1))),
        (lambda p: rot90(p, 3), lambda a: np.rot90(a, 3, (-2, -1))),
        (lambda p: rot90(flip_x(p), 1), lambda a: np.rot90(a[..., ::-1], 1, (-2, -1))),
    ],
    ids=["flip_x", "flip_y", "90", "180", "270", "flip and 90"],
)
def test_flips_and_rotations_are_numpys(ours, numpys):
    full = cells()
    patch = ours(patch_of(full))
    np.testing.assert_array_equal(patch.image, numpys(patch_of(full).image))
    assert_same_masks(patch, numpys(full))
    assert len(patch.cells) == len(full)


@given(
    x=st.integers(-20, WIDTH), y=st.integers(-20, HEIGHT), width=st.integers(1, 90), height=st.integers(1, 90)
)
def test_crops_are_slices_of_the_padded_frame(x, y, width, height):
    full = cells()
    patch = patch_of(full)
    found = crop(patch, (x, y, x + width, y + height), 0.0)
    around = ((100, 100), (100, 100))
    window = slice(y + 100, y + 100 + height), slice(x + 100, x + 100 + width)
    image = np.pad(patch.image, around, constant_values=int(np.median(patch.image)))[window]
    np.testing.assert_array_equal(found.image, image)
    assert_same_masks(found, np.pad(full, ((0, 0), *around))[(slice(None), *window)])


def test_only_cells_near_are_decoded(monkeypatch):
    full = np.zeros((3, HEIGHT, WIDTH), bool)
    full[0, 5:10, 5:10] = full[1, 30:35, 20:25] = full[2, 40:45, 60:65] = True
    decoded = []
    real = rle.crops
    monkeypatch.setattr(rle, "crops", lambda rles, boxes: decoded.append(boxes.tolist()) or real(rles, boxes))
    assert [c.label for c in patch_of(full, near=(15, 12, 40, 40)).cells] == [1]
    assert decoded == [[[20, 30, 25, 35]]]


# -------------------------------------------------------------------------------- what stays


@pytest.mark.parametrize(("columns", "stays"), [(3, True), (2, False)])
def test_a_cell_stays_when_more_than_a_quarter_does(columns, stays):
    full = np.zeros((1, HEIGHT, WIDTH), bool)
    full[0, 10:20, 20:28] = True  # 8 columns: 2 are exactly a quarter, which is not more
    found = crop(patch_of(full), (0, 0, 20 + columns, HEIGHT), 0.25)
    assert [c.mask.sum() for c in found.cells] == ([columns * 10] if stays else [])


def test_what_an_earlier_crop_has_cut_off_counts_as_lost():
    full = np.zeros((1, HEIGHT, WIDTH), bool)
    full[0, 10:20, 20:40] = True
    half = crop(patch_of(full), (0, 0, 30, HEIGHT), 0.0)
    part = resize(half, (2 * HEIGHT, 60))
    assert part.cells[0].whole == pytest.approx(4 * 200, rel=0.05)
    assert len(crop(part, (0, 0, 52, 2 * HEIGHT), 0.25).cells) == 1  # 60 of 200 pixels
    assert len(crop(part, (0, 0, 48, 2 * HEIGHT), 0.25).cells) == 0  # 40 of 200 pixels


def test_a_cell_of_which_only_the_box_reaches_into_the_crop_goes():
    full = np.zeros((1, HEIGHT, WIDTH), bool)
    full[0, 10:30, 10] = full[0, 30, 10:40] = True  # an L: its box's other corner is empty
    assert crop(patch_of(full), (20, 5, 60, 25), 0.0).cells == ()


# -------------------------------------------------------------------------------- scaled


def full_frame_resize(full: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every mask as a whole frame through cv2.resize, as the image is."""
    resized = (cv2.resize(m.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for m in full)
    return np.stack([m >= 0.5 - 1e-6 for m in resized])


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), scale_y=st.floats(0.5, 4.7), scale_x=st.floats(0.5, 4.7))
def test_scaled_masks_are_those_of_scaled_frames(seed, scale_y, scale_x):
    full = cells(seed)
    size = round(HEIGHT * scale_y), round(WIDTH * scale_x)
    patch = resize(patch_of(full), size)
    np.testing.assert_array_equal(patch.image, cv2.resize(patch_of(full).image, size[::-1]))
    found = to_full(patch)
    for label, expected in enumerate(full_frame_resize(full, size)):
        if expected.sum() >= 40:
            assert iou(found[label], expected) > 0.98
        else:  # of a pixel or two, one is a lot
            assert np.count_nonzero(found.get(label, False) ^ expected) <= 2


@pytest.mark.parametrize("scale", [0.5, 1.5, 2, 2.5, 3])
def test_scales_with_round_fractions_are_exact(scale):
    """Bilinear values of exactly a half are common here; they must fall where cv2.resize has them."""
    full = cells()
    size = round(HEIGHT * scale), round(WIDTH * scale)
    assert_same_masks(resize(patch_of(full), size), full_frame_resize(full, size))


def test_scaled_then_cropped_is_as_the_full_frame():
    full = cells(3)
    size = round(HEIGHT * 1.83), round(WIDTH * 1.83)
    window = 31, 22, 97, 80
    found = to_full(crop(resize(patch_of(full), size), window, 0.25))
    whole = full_frame_resize(full, size)
    inside = whole[:, 22:80, 31:97]
    shares = inside.sum((1, 2)) / whole.sum((1, 2))
    assert set(found) == set(np.flatnonzero(shares > 0.25))
    for label, mask in found.items():
        assert iou(mask, inside[label]) > 0.98


def test_a_mask_that_vanishes_is_dropped():
    full = np.zeros((2, HEIGHT, WIDTH), bool)
    full[0, 20, 30] = full[1, 10:30, 10:30] = True
    assert [c.label for c in resize(patch_of(full), (HEIGHT // 4, WIDTH // 4)).cells] == [1]


def test_an_empty_frame_stays_empty():
    patch = patch_of(np.zeros((0, HEIGHT, WIDTH), bool))
    for found in (resize(patch, (100, 100)), crop(patch, (5, 5, 30, 30), 0.25), rot90(patch, 1)):
        assert found.cells == ()


# -------------------------------------------------------------------------------- ignored


@pytest.mark.parametrize(
    "change",
    [
        flip_x,
        flip_y,
        lambda p: rot90(p, 1),
        lambda p: rot90(p, 3),
        lambda p: crop(p, (10, 5, 50, 40), 0.0),
        lambda p: crop(p, (-9, 20, 50, 90), 0.0),
        lambda p: crop(p, (0, 0, WIDTH, HEIGHT), 0.0),
        lambda p: resize(p, (2 * HEIGHT, round(1.7 * WIDTH))),
        lambda p: crop(resize(p, (100, 130)), (3, 9, 80, 71), 0.0),
    ],
)
def test_the_ignored_area_goes_the_way_of_a_mask(change):
    full = cells()[-3:-2]  # the one with a hole
    found = change(patch_of(full, ignore=full[0]))
    assert found.ignore.shape == found.image.shape
    np.testing.assert_array_equal(found.ignore, to_full(found)[0])
    assert change(patch_of(full)).ignore is None


def test_what_a_pasted_cell_covers_is_known():
    image = np.zeros((20, 20), np.uint8)
    new = PatchCell(7, 7, np.ones((6, 5), bool), 2, 30.0)
    found = paste(Patch(image, (), np.ones((20, 20), bool)), [new], image, 0.25)
    assert found.ignore.sum() == 400 - 30
    assert not found.ignore[7:13, 7:12].any()
    assert paste(Patch(image, ()), [new], image, 0.25).ignore is None


# -------------------------------------------------------------------------------- covered


def test_a_pasted_cell_covers_what_lies_under_it():
    image = np.zeros((20, 20), np.uint8)
    square = PatchCell(2, 2, np.ones((10, 10), bool), 0, 100.0)
    nearly_hidden = PatchCell(8, 8, np.ones((5, 5), bool), 1, 25.0)
    new = PatchCell(7, 7, np.ones((6, 5), bool), 2, 30.0)
    found = paste(Patch(image, (square, nearly_hidden)), [new], image, 0.25)
    assert [c.label for c in found.cells] == [0, 2]  # of the second, 5 of 25 pixels are left
    assert found.cells[0].mask.sum() == 100 - 25
    assert not found.cells[0].mask[5:, 5:].any()
