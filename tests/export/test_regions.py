"""Measurements from run lengths are those of scikit-image's regionprops, for any mask."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage.measure import regionprops

from kitlib.export import regions
from kitlib.masks import rle

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def by_scikit_image(mask):
    region = regionprops(mask.astype(np.uint8))[0]
    with warnings.catch_warnings():
        # Of a single line, scikit-image finds no hull.
        warnings.simplefilter("ignore")
        solidity = region.solidity
    y, x = region.centroid
    return [region.area, x, y, region.perimeter, region.eccentricity, solidity]


def check(masks):
    ours = np.stack(regions.shapes([rle.from_mask(mask) for mask in masks]), axis=1)
    assert np.allclose(ours, [by_scikit_image(mask) for mask in masks], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.bool_, SIDES))
def test_small_masks(mask):
    if mask.any():
        check([mask])


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 4])
def test_cells_with_parts_and_holes_anywhere_in_a_frame(smoothness):
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(25):
        height, width = rng.integers(5, 60, 2)
        y, x = rng.integers(0, 20, 2)
        mask = np.zeros((80, 90), bool)
        noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), smoothness)
        mask[y : y + height, x : x + width] = noise > 0
        masks.append(mask)
    check(masks)


def test_an_empty_mask_has_no_measurements_and_the_others_have_theirs():
    masks = [np.zeros((4, 6), bool), np.ones((4, 6), bool), np.zeros((4, 6), bool)]
    found = regions.shapes([rle.from_mask(mask) for mask in masks])
    assert found.area.tolist() == [0, 24, 0]
    assert np.isnan(found.solidity).tolist() == np.isnan(found.perimeter).tolist() == [True, False, True]
    assert found.centroid_x[1] == 2.5
    assert [len(values) for values in regions.shapes([])] == [0] * 6


def test_sums_of_numbers_that_8_and_32_bits_cannot_hold():
    image = np.full((300, 300, 2), 65_535, np.uint16)
    image[..., 1] = 1
    masks = [rle.from_mask(np.ones((300, 300), bool)), rle.from_mask(np.eye(300, dtype=bool))]
    assert regions.intensity_sums(masks, image).tolist() == [[65_535 * 90_000, 90_000], [65_535 * 300, 300]]
    assert regions.intensity_sums([], image).shape == (0, 2)
