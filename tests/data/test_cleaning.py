"""Cleaning: what each option changes, that it changes nothing else, and real masks at full number."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage
from skimage import measure

from kitlib.data import cleaning, tables
from kitlib.data.cleaning import CleaningConfig, Faults
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def frame(*pictures, name="f"):
    arrays = [np.array([[c == "#" for c in row] for row in picture.split()]) for picture in pictures]
    cells = tuple(Cell(rle.from_mask(array), "cort", score=0.5) for array in arrays)
    return Frame(name, None, *arrays[0].shape, cells, "cort", "g", 0.5)


def pictures(cleaned):
    masks = [rle.to_mask(cell.mask) for cell in cleaned.cells]
    return ["\n".join("".join("#" if p else "." for p in row) for row in mask) for mask in masks]


RING = """
......
.###..
.#.#.#
.###..
......"""
FILLED = """
......
.###..
.###.#
.###..
......"""
CLEAN = """
......
.###..
.###..
.###..
......"""


def test_off_by_default():
    frames = [frame(RING)]
    assert cleaning.clean(frames, CleaningConfig()) == frames


def test_holes_are_filled():
    (cleaned,) = cleaning.clean([frame(RING)], CleaningConfig(fill_holes=True))
    assert pictures(cleaned) == [FILLED.strip()]


def test_the_largest_part_is_kept():
    (cleaned,) = cleaning.clean([frame(RING)], CleaningConfig(fill_holes=True, keep_largest=True))
    assert pictures(cleaned) == [CLEAN.strip()]


def test_of_equal_parts_the_first_stays():
    (cleaned,) = cleaning.clean([frame("#.# #.#")], CleaningConfig(keep_largest=True))
    assert pictures(cleaned) == ["#..\n#.."]


def test_a_part_within_a_hole_counts_once_the_hole_is_filled():
    nested = "##### #...# #.#.# #...# #####"
    (cleaned,) = cleaning.clean([frame(nested)], CleaningConfig(fill_holes=True, keep_largest=True))
    assert pictures(cleaned) == ["\n".join(["#####"] * 5)]


def test_small_cells_are_dropped_after_mending():
    ring, speck, strip = "### #.# ###", "#.. ... ...", "### ### ..."
    (cleaned,) = cleaning.clean([frame(ring, speck, strip)], CleaningConfig(fill_holes=True, min_area=9))
    assert pictures(cleaned) == ["###\n###\n###"]
    (cleaned,) = cleaning.clean([frame(ring, speck, strip)], CleaningConfig(min_area=6))
    assert len(cleaned.cells) == 2  # the ring has 8 pixels, the strip exactly 6


def test_bad_frames_are_dropped_by_id():
    frames = [frame("#", name=name) for name in ("bad", "good", "worse")]
    assert [f.id for f in cleaning.clean(frames, CleaningConfig(drop_ids=["bad", "worse"]))] == ["good"]


def test_everything_but_the_masks_stays():
    before = frame(RING)
    (after,) = cleaning.clean([before], CleaningConfig(fill_holes=True))
    assert (after.id, after.category, after.group, after.weight) == ("f", "cort", "g", 0.5)
    assert (after.cells[0].category, after.cells[0].score) == ("cort", 0.5)


def test_a_frame_may_be_left_without_cells():
    (cleaned,) = cleaning.clean([frame("#.")], CleaningConfig(fill_holes=True, keep_largest=True, min_area=2))
    assert cleaned.cells == ()


@given(npst.arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10))))
def test_filling_and_keeping_agree_with_pixels(array):
    one = Frame("f", None, *array.shape, (Cell(rle.from_mask(array), "cort"),))
    (filled,) = cleaning.clean([one], CleaningConfig(fill_holes=True))
    expected = ndimage.binary_fill_holes(array)
    assert np.array_equal(rle.to_mask(filled.cells[0].mask), expected)
    (kept,) = cleaning.clean([one], CleaningConfig(keep_largest=True))
    labels = measure.label(array, connectivity=2)
    sizes = np.bincount(labels.ravel())[1:]
    largest = labels == 1 + np.argmax(sizes) if sizes.size else array
    assert np.array_equal(rle.to_mask(kept.cells[0].mask), largest)


def test_faults_are_counted_by_cell_and_by_pair():
    ring_and_speck, square, bar = RING, CLEAN, "......\n......\n######\n......\n......"
    assert cleaning.faults(frame(ring_and_speck, square, bar)) == Faults(holes=1, broken=1, overlaps=3)
    assert cleaning.faults(frame("#.", ".#")) == Faults()
    assert cleaning.faults(Frame("f", None, 4, 4)) == Faults()
    assert Faults(1, 2, 3) + Faults(1, 0, 1) == Faults(2, 2, 4)


def test_real_masks_lose_their_holes_and_nothing_else(real_annotations):
    frames = tables.read_cells(real_annotations)[:60]
    cleaned = cleaning.clean(frames, CleaningConfig(fill_holes=True, keep_largest=True))
    before, after = (sum(map(cleaning.faults, each), Faults()) for each in (frames, cleaned))
    assert before.holes > 100
    assert (after.holes, after.broken) == (0, 0)
    kept = {frame.id: frame for frame in cleaned}
    grown = changed = 0
    for frame_ in frames:
        if frame_.id in kept:
            old, new = ([c.mask for c in f.cells] for f in (frame_, kept[frame_.id]))
            grown += int((rle.areas(new) - rle.areas(old)).min() < 0)
            changed += sum(a != b for a, b in zip(old, new, strict=True))
    assert (grown, changed) == (0, before.holes)
