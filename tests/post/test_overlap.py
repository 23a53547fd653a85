"""Overlap: hand-made geometry, and that no pixel ever has two owners."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import records
from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.records import Cell


def rectangle(x0, y0, x1, y1, score=0.9, size=(20, 30), category="cort"):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return Cell(rle.from_mask(mask), category, score)


def pixels(cell):
    return set(np.flatnonzero(rle.to_mask(cell.mask)).tolist())


def resolve(cells, size=(20, 30), **options):
    return overlap.resolve(cells, *size, **options)


def test_the_better_cell_takes_the_common_pixels():
    better, worse = rectangle(0, 0, 10, 10, 0.9), rectangle(8, 0, 18, 10, 0.8)
    first, second = resolve([worse, better])
    assert first == better
    assert pixels(second) == pixels(rectangle(10, 0, 18, 10))
    assert (second.score, second.category) == (0.8, "cort")


@pytest.mark.parametrize(
    ("x0", "kept"),
    [
        (7, 2),  # 3 of 10 columns taken: exactly the limit
        (6, 1),  # 4 of 10
    ],
)
def test_a_cell_is_dropped_when_more_than_the_limit_is_taken(x0, kept):
    assert len(resolve([rectangle(0, 0, 10, 10, 0.9), rectangle(x0, 0, x0 + 10, 10, 0.8)])) == kept


def test_a_cell_that_is_covered_whole_is_dropped_whatever_the_limit():
    inside = rectangle(2, 2, 5, 5, 0.5)
    assert resolve([rectangle(0, 0, 10, 10, 0.9), inside], max_clipped=1.0) == [rectangle(0, 0, 10, 10, 0.9)]


def test_what_a_dropped_cell_wanted_stays_free():
    dropped = rectangle(5, 0, 15, 10, 0.8)  # half of it lies under the first
    third = rectangle(12, 0, 22, 10, 0.7)
    assert resolve([rectangle(0, 0, 10, 10, 0.9), dropped, third])[1] == third


@pytest.mark.parametrize(
    ("split", "columns"),
    [
        ("keep_largest", (0, 14)),
        ("keep_all", (0, 14, 16, 20)),
        ("drop", None),
    ],
)
def test_a_cell_that_is_cut_in_two(split, columns):
    bar, cell = rectangle(14, 0, 16, 10, 0.9), rectangle(0, 2, 20, 6, 0.8)
    left = resolve([bar, cell], split=split, max_clipped=0.4)[1:]
    if columns is None:
        assert left == []
    else:
        expected = set()
        for x0, x1 in zip(columns[0::2], columns[1::2], strict=True):
            expected |= pixels(rectangle(x0, 2, x1, 6))
        assert pixels(left[0]) == expected


def test_the_lost_piece_counts_as_clipped():
    bar, cell = rectangle(9, 0, 10, 10, 0.9), rectangle(0, 2, 20, 6, 0.8)
    assert len(resolve([bar, cell], split="keep_all", max_clipped=0.3)) == 2
    assert len(resolve([bar, cell], split="keep_largest", max_clipped=0.3)) == 1  # 10 of 20 columns are left


def test_a_cell_that_was_in_pieces_before_is_not_split_by_a_clip():
    mask = np.zeros((20, 30), bool)
    mask[0:4, 0:4] = mask[10:14, 0:4] = True
    broken = Cell(rle.from_mask(mask), "cort", 0.5)
    nibble = rectangle(0, 0, 1, 1, 0.9)
    assert len(pixels(resolve([nibble, broken], split="drop")[1])) == 31


def test_pieces_that_touch_at_a_corner_hang_together():
    mask = np.zeros((20, 30), bool)
    mask[0:3, 0:3] = mask[3:6, 3:6] = mask[2, 3] = True
    cell, pixel = Cell(rle.from_mask(mask), "cort", 0.5), rectangle(3, 2, 4, 3, 0.9)
    assert len(pixels(resolve([pixel, cell], split="drop")[1])) == 18


def test_ties_do_not_depend_on_the_order_given():
    cells = [
        rectangle(0, 0, 10, 10),
        rectangle(8, 0, 18, 10),
        rectangle(16, 0, 26, 10),
        rectangle(4, 4, 14, 14),
    ]
    results = [resolve(list(order), max_clipped=0.9) for order in itertools.permutations(cells)]
    assert all(r == results[0] for r in results)


def test_nms_suppresses_above_the_limit_only():
    first, second = rectangle(0, 0, 10, 10, 0.9), rectangle(5, 0, 15, 10, 0.8)  # IoU 50 / 150
    assert len(resolve([first, second], mask_nms=1 / 3, max_clipped=1)) == 2
    assert len(resolve([first, second], mask_nms=0.33, max_clipped=1)) == 1


def test_a_suppressed_mask_suppresses_nothing():
    iou = np.eye(3)
    iou[0, 1] = iou[1, 0] = iou[1, 2] = iou[2, 1] = 0.6
    assert overlap.suppress(iou, 0.5).tolist() == [True, False, True]


def test_empty_masks_and_no_cells():
    assert resolve([]) == []
    empty = Cell(rle.from_mask(np.zeros((20, 30), bool)), "cort", 0.9)
    assert resolve([empty]) == []


def test_full_frame_and_one_pixel():
    frame, pixel = rectangle(0, 0, 30, 20, 0.5), rectangle(3, 3, 4, 4, 0.9)
    first, second = resolve([frame, pixel])
    assert first == pixel
    assert len(pixels(second)) == 599


@st.composite
def crowds(draw):
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    cells = []
    for _ in range(draw(st.integers(0, 8))):
        mask = np.zeros((height, width), bool)
        for _ in range(draw(st.integers(1, 2))):
            x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            mask[y : y + draw(st.integers(1, 12)), x : x + draw(st.integers(1, 12))] = True
        cells.append(Cell(rle.from_mask(mask), "cort", draw(st.sampled_from([0.2, 0.5, 0.7, 0.9]))))
    return height, width, cells


def slowly(cells, height, width, max_clipped):
    """The plain way with full frames, without the splitting rule."""
    taken, kept = np.zeros((height, width), bool), []
    for i in records.rank(cells):
        mask = rle.to_mask(cells[i].mask)
        left = mask & ~taken
        if left.any() and mask.sum() - left.sum() <= max_clipped * mask.sum():
            taken |= left
            kept.append((cells[i].score, left))
    return kept


@given(crowds(), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.sampled_from([1.0, 0.3, 0.0]))
def test_never_two_owners(crowd, max_clipped, mask_nms):
    height, width, cells = crowd
    for split in ("keep_largest", "drop", "keep_all"):
        result = overlap.resolve(cells, height, width, max_clipped, split, mask_nms)
        owners = sum((rle.to_mask(c.mask).astype(int) for c in result), np.zeros((height, width), int))
        assert owners.max() <= 1
        assert all(rle.areas([c.mask])[0] > 0 for c in result)


@given(crowds(), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_the_same_as_the_plain_way(crowd, max_clipped):
    height, width, cells = crowd
    result = overlap.resolve(cells, height, width, max_clipped, "keep_all")
    expected = slowly(cells, height, width, max_clipped)
    assert [c.score for c in result] == [score for score, _ in expected]
    for cell, (_, mask) in zip(result, expected, strict=True):
        np.testing.assert_array_equal(rle.to_mask(cell.mask), mask)


def test_eight_hundred_cells():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [690, 505], (800, 2))
    cells = [
        rectangle(x, y, x + 20, y + 18, s, (520, 704))
        for (x, y), s in zip(corners, rng.random(800), strict=True)
    ]
    result = overlap.resolve(cells, 520, 704, mask_nms=0.3)
    owners = np.zeros(520 * 704, int)
    for cell in result:
        owners[rle.pixels([cell.mask])[0]] += 1
    assert owners.max() == 1
    assert 200 < len(result) < 800
