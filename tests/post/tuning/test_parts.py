"""What better masks leave of a mask: its area, its best IoU and its largest piece, as counted by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skimage import measure

from kitlib.masks import rle
from kitlib.post.config import CategoryConfig
from kitlib.post.tuning.parts import Atoms, MaskParts

SIZE = 20, 30


def box(x0, y0, x1, y1):
    return rle.from_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0, *SIZE)


def parts_of(mask, others, truth=()):
    """The parts of a mask, and of the other masks the atoms that it shares with them, numbered as its own."""
    frame = Atoms([mask, *others, *truth])
    mine, *rest = frame.of_mask
    shared = [((other.bits << other.first) >> mine.first) & mine.bits for other in rest]
    return MaskParts(mine, frame, rest[len(others) :]), shared


def test_a_bar_cut_by_another_leaves_two_pieces():
    """A bar of 10 x 2; a better one takes its columns 6 and 7, so that 12 and 4 pixels are left apart."""
    bar, across, true = box(2, 5, 12, 7), box(8, 0, 10, 20), box(2, 5, 8, 8)
    parts, (taken, _) = parts_of(bar, [across], [true])
    assert (parts.area, parts.whole.best_iou) == (20, 12 / 26)
    left = parts.without(taken)
    assert (left.area, left.best_iou) == (16, 12 / 22)
    largest = left.under(CategoryConfig(max_clipped=0.4))
    assert (largest.area, largest.best_iou) == (12, 12 / 18)
    assert left.under(CategoryConfig(max_clipped=0.4, split="keep_all")) is left
    assert left.under(CategoryConfig(max_clipped=0.4, split="drop")) is None
    # The pieces beside the largest count as lost: 8 of 20.
    assert left.under(CategoryConfig(max_clipped=0.3)) is None
    assert left.under(CategoryConfig(max_clipped=0.1, split="keep_all")) is None


def test_a_corner_taken_breaks_nothing_and_all_taken_leaves_nothing():
    square, corner = box(0, 0, 4, 4), box(2, 2, 9, 9)
    parts, (taken,) = parts_of(square, [corner])
    left = parts.without(taken)
    assert (left.area, left.best_iou) == (12, 0)
    assert left.under(CategoryConfig(split="drop")) is left
    parts, (all_taken,) = parts_of(square, [box(0, 0, 30, 20)])
    assert parts.without(all_taken).under(CategoryConfig(max_clipped=1.0)) is None


@given(st.integers(0, 1000), st.integers(1, 12))
def test_atoms_are_the_pieces_of_equal_cover(seed, number):
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(number):
        x, y = rng.integers(0, 25), rng.integers(0, 15)
        shape = rng.random((rng.integers(1, 12), rng.integers(1, 12))) < 0.8
        shape[0, 0] = True
        masks.append(rle.from_crop(shape, int(x), int(y), *SIZE))
    cover = sum(rle.to_mask(mask).astype(np.int64) << place for place, mask in enumerate(masks))
    expected = measure.label(cover, connectivity=2).ravel()
    frame = Atoms(masks)
    sizes = [
        sum((digit >> atom & 1) << place for place, digit in enumerate(frame.digits))
        for atom in range(1, expected.max() + 1)
    ]
    assert sizes == np.bincount(expected)[1:].tolist()
    for mask, atoms in zip(masks, frame.of_mask, strict=True):
        assert np.array_equal(atoms.pixels, np.flatnonzero(rle.to_mask(mask)))
        assert np.array_equal(atoms.first + atoms.atom, expected[atoms.pixels])
        assert atoms.bits == sum(1 << atom for atom in np.unique(atoms.atom).tolist())
