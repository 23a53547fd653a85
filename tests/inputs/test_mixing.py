"""Mosaics and pasted cells on images whose grey levels tell which cell is where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kitlib.inputs.mixing import FramePool, copy_paste, draw_corners, mosaic
from kitlib.inputs.patch import Patch, PatchCell
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def frame(name: str, category: str | None, cells: int = 1) -> Frame:
    mask = rle.from_crop(np.ones((3, 3)), 0, 0, 10, 10)
    return Frame(name, None, 10, 10, (Cell(mask, category or "cell"),) * cells, category)


def square(x: int, y: int, side: int, label: int) -> PatchCell:
    return PatchCell(x, y, np.ones((side, side), bool), label, float(side * side))


def test_partners_are_of_the_same_type_and_have_cells():
    frames = [frame("a", "cort"), frame("b", "cort"), frame("c", "astro"), frame("d", "cort", cells=0)]
    pool, rng = FramePool(frames), np.random.default_rng(0)
    assert {pool.partner(frames[0], rng).id for _ in range(50)} == {"a", "b"}
    assert pool.partner(frames[2], rng).id == "c"
    assert pool.partner(frame("e", "shsy5y"), rng).id == "e"


def test_annotated_and_pseudo_labelled_frames_do_not_mix():
    """A sample has one weight: cells of the other kind would count too much or too little."""
    frames = [frame(name, "cort") for name in "abcd"]
    frames[2:] = [replace(f, cells=tuple(replace(c, score=0.9) for c in f.cells)) for f in frames[2:]]
    pool, rng = FramePool(frames), np.random.default_rng(0)
    assert {pool.partner(frames[0], rng).id for _ in range(50)} == {"a", "b"}
    assert {pool.partner(frames[2], rng).id for _ in range(50)} == {"c", "d"}


def test_a_mosaic_puts_each_corner_in_its_place():
    sizes = [(4, 6), (4, 10), (8, 6), (8, 10)]
    corners = [Patch(np.full(s, i, np.uint8), (square(1, 1, 2, i),)) for i, s in enumerate(sizes)]
    found = mosaic(*corners)
    assert found.size == (12, 16)
    assert [(c.x, c.y) for c in found.cells] == [(1, 1), (7, 1), (1, 5), (7, 5)]
    for cell in found.cells:
        x0, y0, x1, y1 = cell.box
        assert (found.image[y0:y1, x0:x1] == cell.label).all()


def test_a_mosaic_of_which_one_corner_is_not_known_everywhere():
    sizes = [(4, 6), (4, 10), (8, 6), (8, 10)]
    corners = [Patch(np.zeros(s, np.uint8), ()) for s in sizes]
    assert mosaic(*corners).ignore is None
    corners[1] = Patch(corners[1].image, (), np.ones((4, 10), bool))
    found = mosaic(*corners).ignore
    assert found.shape == (12, 16)
    assert found[:4, 6:].all()
    assert found.sum() == 40


def test_corners_meet_in_the_middle_half():
    rng = np.random.default_rng(0)
    for _ in range(100):
        (h0, w0), (h1, w1), (h2, w2), (h3, w3) = draw_corners((100, 60), rng)
        assert (h0, w0, h3, w3) == (h1, w2, h2, w1)
        assert (h0 + h2, w0 + w1) == (100, 60)
        assert 25 <= h0 <= 75
        assert 15 <= w0 <= 45


def test_pasted_cells_take_pixels_and_masks_from_what_they_cover():
    patch = Patch(np.full((60, 60), 100, np.uint8), (square(10, 10, 20, 0), square(41, 41, 3, 1)))
    image = np.full((60, 60), 130, np.uint8)  # a brighter background
    image[20:50, 20:50] = 200
    donor = Patch(image, (square(20, 20, 30, 7),))
    found = copy_paste(patch, donor, 0.25, np.random.default_rng(0))
    assert [c.label for c in found.cells] == [0, 7]  # the small cell is covered whole
    assert (found.image[20:50, 20:50] == 170).all()  # the donor's level, on the patch's background
    assert found.cells[0].mask.sum() == 400 - 100
    assert (found.image[:15, :15] == 100).all()
    halo = found.image[35, 16:20].astype(int)
    assert (np.abs(np.diff(halo)) <= 20).all()
    assert (patch.image == 100).all()  # the original is left alone


def test_up_to_half_of_the_donors_cells_are_pasted():
    patch = Patch(np.zeros((100, 100), np.uint8), ())
    donor = Patch(np.zeros((100, 100), np.uint8), tuple(square(x, 5, 4, x) for x in range(0, 100, 10)))
    rng = np.random.default_rng(0)
    numbers = [len(copy_paste(patch, donor, 0.25, rng).cells) for _ in range(200)]
    assert set(numbers) == set(range(1, 7))


def test_a_cell_at_the_edge_and_a_donor_without_cells():
    patch = Patch(np.zeros((30, 30), np.uint8), (square(0, 0, 30, 0),))
    donor = Patch(np.zeros((30, 30), np.uint8), (square(25, 25, 5, 1),))
    assert [c.label for c in copy_paste(patch, donor, 0.25, np.random.default_rng(0)).cells] == [0, 1]
    assert copy_paste(patch, Patch(donor.image, ()), 0.25, np.random.default_rng(0)) is patch


@pytest.mark.parametrize("category", ["cort", None])
def test_a_pool_without_frames_gives_the_frame_back(category):
    alone = frame("a", category, cells=0)
    assert FramePool([alone]).partner(alone, np.random.default_rng(0)) is alone
