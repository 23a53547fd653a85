"""The checker: every fault by itself, with its row and the mend, and sound files pass."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kitlib.errors import KitError
from kitlib.masks import rle, text
from kitlib.records import Frame
from kitlib.submission.checker import _taken, check, disjoint

TEST = [Frame("abc", None, 10, 20), Frame("0012", None, 10, 20), Frame("d.e", None, 6, 5)]
SOUND = ["id,predicted", "abc,1 3 21 3", "abc,10 5", "0012,200 1", "d.e,"]


def problems(tmp_path, lines, test=TEST):
    path = tmp_path / "submission.csv"
    path.write_text("\n".join(lines) + "\n")
    return check(path, test)


def with_row(row, at=1):
    """The sound file with its row (0 is the header) replaced."""
    return [*SOUND[:at], row, *SOUND[at + 1 :]]


def test_a_sound_file_has_no_problems(tmp_path):
    assert problems(tmp_path, SOUND) == []
    assert problems(tmp_path, [*SOUND, ""]) == []


def test_carriage_returns_and_a_byte_order_mark_are_no_problem(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(SOUND).encode())
    assert check(path, TEST) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("abc,1 3 21", "row 2: image abc: 3 numbers, an odd count"),
        ("abc,1 0", "row 2: image abc: length 0 at start 1"),
        ("abc,1 -3", "row 2: image abc: length -3 at start 1"),
        ("abc,0 3", "row 2: image abc: pair '0 3' leaves the 20 x 10 frame's pixels 1 to 200"),
        ("abc,199 3", "row 2: image abc: pair '199 3' leaves"),
        ("abc,21 3 1 3", "row 2: image abc: start 1 comes before"),
        ("abc,1 3 3 3", "row 2: image abc: start 3 comes before"),
        ("abc,1 x", "row 2: image abc: 'x' is not a whole number"),
        ("abc,1 3.0", "row 2: image abc: '3.0' is not a whole number"),
        ("abc.png,1 3", "row 2: id 'abc.png' has a file extension; write 'abc'"),
        (" abc,1 3", "row 2: id ' abc' has blanks around it; write 'abc'"),
        ("12,1 3", "row 2: id '12' is '0012' turned into a number"),
        ("12.0,1 3", "row 2: id '12.0' is '0012' turned into a number"),
        ("zzz,1 3", "row 2: 'zzz' is not a test image; delete it"),
        ("abc,1 3,", "row 2: has 3 fields instead of 2"),
        ("abc", "row 2: has 1 fields instead of 2"),
        ("abc,", "row 2: is empty but image abc has other rows; delete it"),
        ("d.e,", "row 5: is empty but image d.e has other rows; delete it"),
    ],
)
def test_one_bad_row_is_one_problem(tmp_path, row, expected):
    found = problems(tmp_path, with_row(row))
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_a_missing_image(tmp_path):
    assert problems(tmp_path, SOUND[:3] + SOUND[4:]) == [
        "image 0012 has no row; add '0012,' (empty if nothing was found in it)"
    ]


def test_every_problem_is_reported_in_the_order_of_rows(tmp_path):
    lines = ["id,predicted", "zzz,1 1", "abc,1", "zzz,2 1", "0012,1 1", "0012,300 2"]
    found = problems(tmp_path, lines)
    assert [p.split(":")[0] for p in found[:3]] == ["row 2", "row 3", "row 6"]
    assert found[3].startswith("image d.e has no row")
    assert len(found) == 4
    assert found[0].endswith("delete it (and 1 more rows)")


def test_overlaps_name_both_rows(tmp_path):
    lines = ["id,predicted", "abc,1 5", "0012,1 5", "abc,10 5", "abc,4 3 12 9", "d.e,"]
    assert problems(tmp_path, lines) == [
        "row 5: overlaps row 2 of image abc in 2 pixels; give each pixel to one cell",
        "row 5: overlaps row 4 of image abc in 3 pixels; give each pixel to one cell",
    ]


def test_a_repeated_row_is_not_also_an_overlap(tmp_path):
    assert problems(tmp_path, [*SOUND, "abc,10 5"]) == ["row 6: repeats row 3; delete one of them"]


def test_a_pixel_counts_for_the_first_row_that_has_it_and_few_overlaps_are_named(tmp_path):
    singles = [f"abc,{start} 1" for start in (1, 5, 9, 13, 17)]
    lines = ["id,predicted", *singles, "abc,1 18", "abc,18 2", "0012,", "d.e,"]
    end = "of image abc in 1 pixels; give each pixel to one cell"
    assert problems(tmp_path, lines) == [
        f"row 7: overlaps row 2 {end}",
        f"row 7: overlaps row 3 {end}",
        f"row 7: overlaps row 4 {end} (and 2 more rows)",
        f"row 8: overlaps row 7 {end}",
    ]


@given(st.lists(st.lists(st.booleans(), min_size=24, max_size=24), min_size=2, max_size=6))
def test_taken_pixels_are_those_of_a_label_map(masks):
    masks = [np.array(mask) for mask in masks if any(mask)]
    texts = [rle.to_text(rle.from_mask(mask.reshape(4, 6))) for mask in masks]
    owner, expected = np.full(24, -1), []
    for place, mask in enumerate(masks):
        earlier, pixels = np.unique(owner[mask & (owner >= 0)], return_counts=True)
        expected.append(list(zip(earlier.tolist(), pixels.tolist(), strict=True)))
        owner[mask & (owner < 0)] = place
    size = len(texts)
    assert list(_taken(text.read(texts, [4] * size, [6] * size))) == expected


def test_forty_thousand_masks_are_checked_in_little_memory(tmp_path):
    """Each tenth overlaps its neighbour; all pairs of IoUs would be 12.8 GB."""
    lines = ["id,predicted"]
    for place in range(40_000):
        start = place // 200 * 704 + place % 200 * 3 + 1
        lines.append(f"abc,{start} {4 if place % 10 == 0 else 3}")
    tracemalloc.start()
    found = problems(tmp_path, lines, [Frame("abc", None, 520, 704)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 4000
    assert found[0] == "row 3: overlaps row 2 of image abc in 1 pixels; give each pixel to one cell"
    assert peak < 200 * 2**20


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("id,prediction", "the columns are 'id,prediction'; they must be 'id,predicted'"),
        ("predicted,id", "must be 'id,predicted'"),
        (",id,predicted", "index=False"),
        ("id,predicted,score", "must be 'id,predicted'"),
    ],
)
def test_wrong_columns(tmp_path, header, hint):
    (problem,) = problems(tmp_path, [header, *SOUND[1:]])
    assert problem.startswith("row 1: ")
    assert hint in problem


def test_masks_numbered_down_the_columns(tmp_path):
    disc = np.hypot(*np.mgrid[-20:40, -30:70]) < 12  # 60 x 100
    turned = rle.to_text(rle.from_mask(np.ascontiguousarray(disc.T)))
    test = [Frame("abc", None, *disc.shape)]
    (problem,) = problems(tmp_path, ["id,predicted", f"abc,{turned}"], test)
    assert problem.startswith("row 2: the masks seem to be numbered down the columns")
    assert problems(tmp_path, ["id,predicted", f"abc,{rle.to_text(rle.from_mask(disc))}"], test) == []


def test_slanted_cells_of_a_nearly_square_frame_are_no_sign_of_columns(tmp_path):
    size = (299, 300)
    slanted = np.zeros(size, bool)
    for row in range(120):
        slanted[20 + row, 200 - row : 210 - row] = True  # each run starts 299 pixels after the one above
    rows = [f"abc,{rle.to_text(rle.from_mask(np.roll(slanted, 20 * n, axis=1)))}" for n in range(3)]
    assert problems(tmp_path, ["id,predicted", *rows], [Frame("abc", None, *size)]) == []


def test_a_mask_longer_than_the_csv_default(tmp_path):
    text = " ".join(f"{i} 1" for i in range(1, 60000, 2))
    assert len(text) > 131072
    assert problems(tmp_path, ["id,predicted", f"abc,{text}"], [Frame("abc", None, 300, 300)]) == []


@pytest.mark.parametrize("content", [None, b"", b"id,predicted\n\xff\xfe,1 2\n", b'id,predicted\nabc,"1 2\n'])
def test_files_that_are_no_table(tmp_path, content):
    path = tmp_path / "submission.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError, match=r"submission\.csv"):
        check(path, TEST)


def test_sizes_and_ids_come_from_the_test_folder(tmp_path):
    folder = tmp_path / "sartorius-cell-instance-segmentation"
    (folder / "test").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / "test" / "abc.png")
    assert problems(tmp_path, ["id,predicted", "abc,72 1"], tmp_path) == []
    (problem,) = problems(tmp_path, ["id,predicted", "abc,72 2"], folder)
    assert "the 9 x 8 frame's pixels 1 to 72" in problem


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], True),
        ([""], True),
        (["1 5", "6 2"], True),
        (["6 2 20 1", "1 5 8 12"], True),
        (["1 6", "6 2"], False),
    ],
)
def test_disjoint(texts, expected):
    assert disjoint(texts) is expected
