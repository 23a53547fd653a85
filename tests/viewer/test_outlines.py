"""Packed outlines enclose exactly the pixels of their masks."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.viewer import outlines


def unpacked(block: bytes) -> list[tuple[int, NDArray]]:
    """The rings of a block, each with the place of its mask, as the front end reads them."""
    numbers = np.frombuffer(block, "<u4").astype(np.int64)
    rings, points = numbers[:2]
    owners, bounds = numbers[2 : 2 + rings], numbers[2 + rings : 3 + 2 * rings]
    corners = numbers[3 + 2 * rings :].reshape(points, 2)
    return [(int(o), corners[a:b]) for o, a, b in zip(owners, bounds[:-1], bounds[1:], strict=True)]


def filled(rings: list[NDArray], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels that an odd number of rings enclose, by casting rays through their centres."""
    found = np.zeros((height, width), bool)
    for ring in rings:
        following = np.roll(ring, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(ring, following, strict=True):
            # Vertical edges alone are crossed by a horizontal ray.
            if x0 == x1:
                found[min(y0, y1) : max(y0, y1), x0:] ^= True
    return found


def test_a_rectangle_has_four_corners() -> None:
    mask = rle.from_crop(np.ones((2, 3)), 4, 1, 5, 9)
    ((owner, ring),) = unpacked(outlines.pack([mask]))
    assert owner == 0
    assert sorted(map(tuple, ring.tolist())) == [(4, 1), (4, 3), (7, 1), (7, 3)]


def test_no_masks_and_an_empty_one_have_no_rings() -> None:
    empty = rle.from_mask(np.zeros((3, 4)))
    assert unpacked(outlines.pack([])) == []
    assert unpacked(outlines.pack([empty])) == []
    assert [owner for owner, _ in unpacked(outlines.pack([empty, rle.from_mask(np.ones((3, 4)))]))] == [1]


def test_a_hole_is_a_ring_of_its_own() -> None:
    ring = np.ones((5, 5))
    ring[2, 2] = 0
    found = unpacked(outlines.pack([rle.from_mask(ring)]))
    assert [owner for owner, _ in found] == [0, 0]
    assert sorted(len(points) for _, points in found) == [4, 4]


@given(st.integers(0, 10_000))
def test_rings_enclose_the_pixels_of_their_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = [cv2.blur(rng.random((11, 13)), (3, 3)) > 0.5 for _ in range(3)]
    masks = [*smooth, rng.random((11, 13)) > 0.5]
    rings = unpacked(outlines.pack([rle.from_mask(mask) for mask in masks]))
    for place, mask in enumerate(masks):
        assert (filled([ring for owner, ring in rings if owner == place], 11, 13) == mask).all()
