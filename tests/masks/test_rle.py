"""Masks as run lengths, against pixels and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco
from skimage.draw import polygon2mask
from skimage.measure import label, regionprops

from kitlib.data import tables
from kitlib.masks import rle

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
sparse = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20), fill=st.just(False))


def slow_text(mask: np.ndarray) -> str:
    """The competition's encoding, pixel by pixel."""
    pairs, previous = [], False
    for place, inside in enumerate(mask.ravel(), 1):
        if inside and not previous:
            pairs.append([place, 0])
        if inside:
            pairs[-1][1] += 1
        previous = inside
    return " ".join(f"{start} {length}" for start, length in pairs)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1 1", ["#..", "..."]),  # one pixel, the first
        ("6 1", ["...", "..#"]),  # one pixel, the last
        ("1 6", ["###", "###"]),  # full frame
        ("2 2 5 1", [".##", ".#."]),  # row-major: left to right, then down
        ("3 2", ["..#", "#.."]),  # a run that passes from one row to the next
        ("1 2 3 1", ["###", "..."]),  # runs that touch are one
        (" 2  1 ", [".#.", "..."]),  # blanks are blanks
    ],
)
def test_text_names_pixels_from_one_row_by_row(text: str, rows: list[str]) -> None:
    expected = np.array([[c == "#" for c in row] for row in rows])
    np.testing.assert_array_equal(rle.to_mask(rle.parse(text, 2, 3)), expected)


@given(masks)
def test_mask_text_and_runs_agree_with_the_slow_way(mask: np.ndarray) -> None:
    r = rle.from_mask(mask)
    np.testing.assert_array_equal(rle.to_mask(r), mask)
    assert rle.height_width(r) == mask.shape
    assert rle.to_text(r) == slow_text(mask)
    assert rle.from_runs(*rle.runs(r), *mask.shape) == r
    if mask.any():
        assert rle.parse(slow_text(mask), *mask.shape) == r


@given(st.lists(sparse, min_size=1, max_size=6))
def test_many_texts_at_once_are_as_one_by_one(several: list[np.ndarray]) -> None:
    texts = [slow_text(m) or "1 1" for m in several]
    heights, widths = [m.shape[0] for m in several], [m.shape[1] for m in several]
    one_by_one = [rle.parse(*arguments) for arguments in zip(texts, heights, widths, strict=True)]
    assert rle.parse_all(texts, heights, widths) == one_by_one


@given(st.lists(masks, max_size=6))
def test_many_masks_at_once_are_as_one_by_one(several: list[np.ndarray]) -> None:
    """Texts, pixels, runs by row and crops, of frames of different sizes."""
    rles = [rle.from_mask(mask) for mask in several]
    assert rle.to_texts(rles) == [slow_text(mask) for mask in several]
    assert [found.tolist() for found in rle.pixels(rles)] == [np.flatnonzero(m).tolist() for m in several]
    boxes = [(-1, 0, mask.shape[1] + 2, mask.shape[0] - 1) for mask in several]
    for mask, found in zip(several, rle.crops(rles, boxes), strict=True):
        np.testing.assert_array_equal(found, np.pad(mask, ((0, 0), (1, 2)))[:-1] != 0)
        assert found.flags.c_contiguous
    runs = [[] for _ in several]
    for owner, row, first, end in np.stack(rle.row_runs(rles), axis=1).tolist():
        runs[owner] += [(row, column) for column in range(first, end)]
    assert runs == [list(zip(*map(np.ndarray.tolist, np.nonzero(m)), strict=True)) for m in several]


def test_runs_that_touch_are_cropped_whole() -> None:
    """COCO files may hold gaps of no pixels; columns 1 and 2 of the second row, in two runs."""
    r = rle.RLE(
        size=[4, 3], counts=coco.frPyObjects({"size": [4, 3], "counts": [5, 1, 0, 1, 5]}, 4, 3)["counts"]
    )
    assert rle.crop(r, (0, 0, 4, 3)).tolist() == rle.to_mask(r).tolist()
    assert rle.crop(r, (2, 1, 4, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize("text", ["1 2\t9 2", "1 2  9 2\r\n", "\n 1 2 9\n2"])
def test_any_blanks_separate(text: str) -> None:
    assert rle.to_text(rle.parse(text, 4, 5)) == "1 2 9 2"
    assert rle.parse_all(["1 1", text], [4] * 2, [5] * 2)[1] == rle.parse("1 2 9 2", 4, 5)


def test_no_texts_give_no_masks() -> None:
    assert rle.parse_all([], [], []) == []


@given(masks)
def test_the_rle_is_pycocotools_own_of_the_transpose(mask: np.ndarray) -> None:
    assert rle.from_mask(mask) == coco.encode(np.asfortranarray(mask.T.astype(np.uint8)))
    standard = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle.to_coco(rle.from_mask(mask)) == standard
    assert rle.from_coco(standard) == rle.from_mask(mask)


def test_long_runs_take_as_many_characters_as_coco_s() -> None:
    """Counts around the powers of 32 at which COCO's text grows, both ways from the count two before."""
    rng = np.random.default_rng(0)
    for size in (15, 16, 17, 511, 512, 513, 16383, 16384, 16385, 300_000):
        lengths = np.concatenate([[size, 1, 1, size], rng.integers(1, size + 1, 4)])
        starts = np.cumsum(lengths + 3) - lengths
        width = int(starts[-1] + lengths[-1]) + 5
        flat = np.zeros(width, np.uint8)
        for start, length in zip(starts, lengths, strict=True):
            flat[start : start + length] = 1
        expected = coco.encode(np.asfortranarray(flat[:, None]))
        text = " ".join(f"{s + 1} {n}" for s, n in zip(starts, lengths, strict=True))
        assert rle.parse(text, 1, width) == expected
        assert rle.from_runs(starts, lengths, 1, width) == expected
        np.testing.assert_array_equal(rle.runs(expected)[1], lengths)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "annotation is empty"),
        ("1 2 3", "3 numbers, an odd count"),
        ("1 0", "length 0 at start 1"),
        ("1 -2", "length -2 at start 1"),
        ("0 1", r"pair '0 1' leaves the 5 x 4 frame's pixels 1 to 20"),
        ("20 2", r"pair '20 2' leaves"),
        ("99999999999999999999999 1", "leaves"),
        ("9 1 1 1", "start 1 comes before the end of the pair before it"),
        ("1 3 3 1", "start 3 comes before the end"),
        ("1 two", "'two' is not a whole number"),
        ("1.5 2", "'1.5' is not a whole number"),
        ("1 2 ٣ 4", "is not a whole number"),
        ("1_0 2", "'1_0' is not a whole number"),
        ("nan 1", "'nan' is not a whole number"),
        ("--5 3", "'--5' is not a whole number"),
        ("+5 3", "'[+]5' is not a whole number"),
        ("1\u00a02", "'1\u00a02' is not a whole number"),  # a blank that does not break lines
        ("1\x1f2", "'1\x1f2' is not a whole number"),  # what Python's str.split takes for a blank
        ("5 9223372036854775807", "leaves"),  # start + length is more than 64 bits hold
        ("5 99999999999999999999999", "leaves"),
    ],
)
def test_a_bad_text_is_named(text: str, problem: str) -> None:
    with pytest.raises(rle.RleError, match=problem):
        rle.parse(text, 4, 5)
    good = "1 1"
    with pytest.raises(rle.RleError, match=problem) as caught:
        rle.parse_all([good, good, text, good], [4] * 4, [5] * 4)
    assert caught.value.index == 2


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 5)))
def test_a_label_map_gives_each_instance_s_mask(labels: np.ndarray) -> None:
    each = [rle.from_mask(labels == value) for value in np.unique(labels) if value]
    assert rle.from_labels(labels) == each


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint32])
def test_label_maps_of_any_integer_type(dtype: type) -> None:
    labels = np.array([[0, 3, 3], [200, 200, 0]], dtype)
    assert [rle.to_text(r) for r in rle.from_labels(labels)] == ["2 2", "4 2"]
    assert rle.from_labels(labels.T[::-1]) == rle.from_labels(labels.T[::-1].copy())  # not contiguous


def test_a_label_map_of_800_cells() -> None:
    labels = np.kron(np.arange(1, 801).reshape(20, 40), np.ones((6, 5), int))
    labels[::6] = 0
    found = rle.from_labels(labels)
    assert len(found) == 800
    assert (rle.areas(found) == 25).all()
    properties = regionprops(labels)
    expected = [[p.bbox[1], p.bbox[0], p.bbox[3], p.bbox[2]] for p in properties]
    np.testing.assert_array_equal(rle.boxes(found), expected)


boxes = st.tuples(*[st.integers(-6, 16)] * 2, *[st.integers(0, 12)] * 2)


@given(masks, boxes)
def test_a_crop_is_the_array_s(mask: np.ndarray, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    padded = np.pad(mask, 40)
    expected = padded[40 + y : 40 + y + height, 40 + x : 40 + x + width]
    np.testing.assert_array_equal(rle.crop(rle.from_mask(mask), (x, y, x + width, y + height)), expected)


@given(masks, st.integers(-16, 12), st.integers(-16, 12))
def test_a_box_local_mask_is_put_into_its_frame(mask: np.ndarray, x: int, y: int) -> None:
    frame = np.zeros((50, 50), bool)
    frame[20 + y : 20 + y + mask.shape[0], 20 + x : 20 + x + mask.shape[1]] = mask
    assert rle.from_crop(mask, x, y, 9, 7) == rle.from_mask(frame[20:29, 20:27])


@given(st.lists(st.tuples(masks, st.integers(-16, 12), st.integers(-16, 12)), max_size=5))
def test_many_box_local_masks_are_put_into_their_frame_together(crops: list) -> None:
    together = rle.from_edges([rle.crop_edges(*crop, 9, 7) for crop in crops], 9, 7)
    assert together == [rle.from_crop(*crop, 9, 7) for crop in crops]


@given(masks, st.data())
def test_measures_agree_with_pixels(mask: np.ndarray, data: st.DataObject) -> None:
    other = data.draw(arrays(bool, mask.shape))
    both = [rle.from_mask(mask), rle.from_mask(other)]
    assert rle.areas(both).tolist() == [mask.sum(), other.sum()]
    np.testing.assert_array_equal(rle.to_mask(rle.merge(both)), mask | other)
    assert rle.covered(both) == (mask | other).sum()
    union = (mask | other).sum()
    if union:
        assert rle.iou(both[:1], both[1:])[0, 0] == pytest.approx((mask & other).sum() / union)
    if mask.any():
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert rle.boxes(both[:1])[0].tolist() == box


def test_nothing_measures_nothing() -> None:
    empty = rle.from_mask(np.zeros((3, 4), bool))
    assert rle.to_text(empty) == ""
    assert rle.areas([empty]).tolist() == [0]
    assert rle.boxes([empty]).tolist() == [[0, 0, 0, 0]]
    assert rle.areas([]).shape == (0,)
    assert rle.covered([]) == rle.covered([empty]) == 0
    assert rle.boxes([]).shape == (0, 4)
    assert rle.iou([empty], []).shape == (1, 0)
    assert rle.from_labels(np.zeros((2, 2), int)) == []


def test_more_than_255_masks_are_measured() -> None:
    one = rle.from_mask(np.ones((2, 3), bool))
    assert rle.areas([one] * 700).tolist() == [6] * 700
    assert rle.boxes([one] * 700).tolist() == [[0, 0, 3, 2]] * 700


def test_a_hole_stays_a_hole() -> None:
    mask = np.ones((5, 6), bool)
    mask[2, 2:4] = False
    assert rle.to_text(rle.from_mask(mask)) == "1 14 17 14"
    np.testing.assert_array_equal(rle.to_mask(rle.parse("1 14 17 14", 5, 6)), mask)


def test_polygons_fill_what_pycocotools_fills() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        points = 25 + rng.uniform(16, 24, 12)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        (mask,) = rle.from_polygons([[points.ravel().tolist()]], 50, 60)
        found = rle.to_mask(mask)
        peer = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], 50, 60)))
        np.testing.assert_array_equal(found, peer.astype(bool))
        filled = polygon2mask((50, 60), points[:, ::-1])
        assert (found & filled).sum() > 0.85 * (found | filled).sum()


def test_real_annotations_come_back_to_the_letter(real_annotations) -> None:
    frames = tables.read_cells(real_annotations)[:40]
    for frame in frames:
        for cell in frame.cells:
            mask = rle.to_mask(cell.mask)
            assert rle.to_text(cell.mask) == slow_text(mask)
            break
        found = [c.mask for c in frame.cells]
        for r, box in zip(found, rle.boxes(found), strict=True):
            inside = rle.crop(r, box)
            assert inside[0].any()
            assert inside[:, -1].any()
            assert rle.from_crop(inside, box[0], box[1], 520, 704) == r


def test_labels_of_connected_parts_match_scikit_image() -> None:
    noise = np.random.default_rng(1).random((60, 80)) > 0.6
    labels = label(noise, connectivity=1)
    found = rle.from_labels(labels)
    assert rle.areas(found).tolist() == [int(p.area) for p in regionprops(labels)]


def test_shares_are_intersections_over_the_first_area() -> None:
    """A block of 2 x 4, one of 2 x 2 in it, and one of 2 x 4 that shares two pixels with the first."""
    blocks = [(0, 0, 4, 2), (1, 0, 2, 2), (3, 0, 4, 2)]
    masks = [rle.from_crop(np.ones((h, w)), x, y, 6, 9) for x, y, w, h in blocks]
    empty = rle.from_runs(np.zeros(0), np.zeros(0), 6, 9)
    expected = [[1, 0.5, 0.25, 0], [1, 1, 0, 0], [0.25, 0, 1, 0], [0, 0, 0, 0]]
    assert rle.shares([*masks, empty], [*masks, empty]).tolist() == expected
    assert rle.shares([], masks).shape == (0, 3)
    assert rle.shares(masks, []).shape == (3, 0)
