"""Tables of cells: what spreadsheets and other programs do to them, and what is said of bad ones."""

from __future__ import annotations

import gc
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame

HEAD = "id,annotation,width,height,cell_type,sample_id"
FOUND = "id,cell_type,score,mask_score,width,height,predicted"


def table(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def texts(frame: Frame) -> list[str]:
    return [rle.to_text(cell.mask) for cell in frame.cells]


# ------------------------------------------------------------------------------------- as it should be


def test_cells_gather_by_id_in_the_order_of_first_appearance(tmp_path: Path) -> None:
    rows = ["b,1 2,8,6,cort,s1", "a,3 1,8,6,astro,", "b,9 2,8,6,cort,s1"]
    b, a = tables.read_cells(table(tmp_path / "a.csv", *rows))
    assert (b.id, b.height, b.width, b.category, b.group) == ("b", 6, 8, "cort", "s1")
    assert (a.id, a.group, a.path) == ("a", None, None)
    assert (texts(b), texts(a)) == (["1 2", "9 2"], ["3 1"])


@pytest.mark.parametrize("name", ["0030e5", "1e12", "001234567890", "NaN", "None", "1e1234567890", "-0"])
def test_ids_that_look_like_something_else_stay_as_they_are(tmp_path: Path, name: str) -> None:
    (frame,) = tables.read_cells(table(tmp_path / "a.csv", f"{name},1 2,8,6,cort,"))
    assert frame.id == name


def test_the_type_of_a_frame_is_that_of_most_of_its_cells(tmp_path: Path) -> None:
    rows = ["a,1 1,8,6,cort,", "a,3 1,8,6,astro,", "a,5 1,8,6,cort,", "b,1 1,8,6,cort,", "b,3 1,8,6,astro,"]
    a, b = tables.read_cells(table(tmp_path / "a.csv", *rows))
    assert [cell.category for cell in a.cells] == ["cort", "astro", "cort"]
    assert (a.category, b.category) == ("cort", "astro")  # of equals the first by name


def test_columns_may_be_quoted_moved_and_added(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", '"x, y","6","1 2","a,b","8"', head='"note", height ,annotation,id,width')
    (frame,) = tables.read_cells(path)
    assert (frame.id, frame.height, frame.width, texts(frame)) == ("a,b", 6, 8, ["1 2"])
    assert frame.cells[0] == Cell(frame.cells[0].mask, "cell")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n\n"])
def test_byte_order_marks_and_ends_of_lines(tmp_path: Path, encoding: str, ends: str, tail: str) -> None:
    text = f"{HEAD}\né1,1 2,8,6,cort,{tail}".replace("\n", ends)
    (frame,) = tables.read_cells(save(tmp_path / "a.csv", text.encode(encoding)))
    assert (frame.id, texts(frame)) == ("é1", ["1 2"])


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_compressed_tables(tmp_path: Path) -> None:
    content = f"{HEAD}\na,1 2,8,6,cort,\n".encode()
    (frame,) = tables.read_cells(save(tmp_path / "a.csv.gz", gzip.compress(content)))
    assert texts(frame) == ["1 2"]


def test_a_row_without_mask_is_a_frame_without_cells(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "a,,,,8,6,", "b,cort,0.5,,8,6,1 2", "c,,,,8,6, ", head=FOUND)
    a, b, c = tables.read_cells(path)
    assert (a.cells, a.category, c.cells) == ((), None, ())
    assert b.cells == (Cell(b.cells[0].mask, "cort", 0.5),)


def test_a_submission_has_the_sizes_that_are_given(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "a,48 1", "b,35 1", "b,1 7", head="id,predicted")
    a, b = tables.read_cells(path, {"a": (6, 8), "b": (5, 7)})
    assert [(f.height, f.width) for f in (a, b)] == [(6, 8), (5, 7)]
    assert rle.boxes([cell.mask for cell in b.cells]).tolist() == [[6, 4, 7, 5], [0, 0, 7, 1]]


def test_an_image_of_unknown_size_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "a,48 1", "b,35 1", head="id,predicted")
    with pytest.raises(KitError, match=r"a\.csv row 3 \(id b\): the size of this image is unknown; add"):
        tables.read_cells(path, {"a": (6, 8)})


def test_a_table_with_nothing_but_its_head(tmp_path: Path) -> None:
    assert tables.read_cells(table(tmp_path / "a.csv")) == []


def test_a_mask_longer_than_python_s_csv_lets_a_field_be(tmp_path: Path) -> None:
    annotation = " ".join(f"{start} 1" for start in range(1, 80_000, 2))
    assert len(annotation) > 131_072
    (frame,) = tables.read_cells(table(tmp_path / "a.csv", f"a,{annotation},400,200,cort,"))
    assert rle.areas([frame.cells[0].mask]).tolist() == [40_000]


@pytest.mark.parametrize("was_on", [True, False])
def test_python_s_collector_is_left_as_it_was(tmp_path: Path, was_on: bool) -> None:
    path = table(tmp_path / "a.csv", "a,1 0,8,6,cort,")
    try:
        if not was_on:
            gc.disable()
        with pytest.raises(KitError):
            tables.read_cells(path)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------- there and back

words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)
shares = st.none() | st.integers(0, 10**6).map(lambda n: n / 10**6)  # six digits are written
masks = st.lists(st.booleans(), min_size=12, max_size=12).filter(any)
cells = st.builds(
    Cell, masks.map(lambda bits: rle.from_mask(np.array(bits).reshape(3, 4))), words, shares, shares
)


@given(st.dictionaries(words, st.lists(cells, max_size=4), max_size=3))
def test_predictions_come_back(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Cell]]
) -> None:
    frames = [Frame(name, None, 3, 4, tuple(each)) for name, each in found.items()]
    path = tables.write_predictions(tmp_path_factory.getbasetemp() / "p.csv", frames)
    back = tables.read_cells(path)
    assert [(f.id, f.height, f.width, f.cells) for f in back] == [
        (f.id, f.height, f.width, f.cells) for f in frames
    ]


def test_annotations_come_back_and_are_the_competition_s(tmp_path: Path) -> None:
    mask = rle.parse("2 2 9 1", 3, 4)
    frame = Frame("0030e5", None, 3, 4, (Cell(mask, "cort", 0.9), Cell(mask, "cort")), "cort", "plate 1")
    path = tables.write_annotations(tmp_path / "train.csv", [frame])
    assert path.read_text() == (
        "id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta\n"
        "0030e5,2 2 9 1,4,3,cort,,,plate 1,\n"
        "0030e5,2 2 9 1,4,3,cort,,,plate 1,\n"
    )
    (back,) = tables.read_cells(path)
    assert (back.id, back.category, back.group, len(back.cells)) == ("0030e5", "cort", "plate 1", 2)


# ------------------------------------------------------------------------------------------- bad ones

BAD = {
    "a score that is no number": (
        FOUND,
        "b,cort,high,,8,6,1 2",
        "row 3: score 'high' is not a number from 0 to 1; write one",
    ),
    "a score above one": (
        FOUND,
        "b,cort,0.5,97,8,6,1 2",
        "row 3: mask_score '97' is not a number from 0 to 1",
    ),
    "a score that is not a number": (FOUND, "b,cort,nan,,8,6,1 2", "row 3: score 'nan'"),
    "an empty id": (HEAD, ",1 2,8,6,cort,", "row 3: the id is empty; write the image's name"),
    "no width": (HEAD, "b,1 2,,6,cort,", "row 3 (id b): width '' and height '6' must be the image's size"),
    "a width of zero": (HEAD, "b,1 2,0,6,cort,", "row 3 (id b): width '0' and height '6'"),
    "a fraction": (HEAD, "b,1 2,8.5,6,cort,", "row 3 (id b): width '8.5'"),
    "a size of its own": (
        HEAD,
        "a,1 2,6,8,cort,",
        "row 3 (id a): width '6' and height '8' must be the image's",
    ),
    "an odd count": (HEAD, "b,1 2 3,8,6,cort,", "row 3 (id b): 3 numbers, an odd count; every start needs"),
    "out of the frame": (
        HEAD,
        "b,48 2,8,6,cort,",
        "row 3 (id b): pair '48 2' leaves the 8 x 6 frame's pixels",
    ),
    "a field too many": (HEAD, "b,1 2,8,6,cort,,", "row 3 has 7 fields instead of 6; the file may be cut"),
    "a field too few": (
        HEAD,
        "b,1 2,8",
        "row 3 has 3 fields instead of 6; the file may be cut short: correct",
    ),
    "a quote that never ends": (HEAD, 'b,"1 2,8,6,cort,', "row 3 cannot be read as CSV (unexpected end of"),
}


@pytest.mark.parametrize(("head", "row", "problem"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named(tmp_path: Path, head: str, row: str, problem: str) -> None:
    good = {HEAD: "a,1 2,8,6,cort,", FOUND: "a,cort,0.5,,8,6,1 2"}[head]
    path = table(tmp_path / "a.csv", good, row, *(good for _ in range(3)), head=head)
    with pytest.raises(KitError) as caught:
        tables.read_cells(path)
    assert str(caught.value).startswith(f"{path} {problem}")


def test_a_blank_line_amid_rows_is_a_row_cut_short(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "a,1 2,8,6,cort,", "", "b,1 2,8,6,cort,")
    with pytest.raises(KitError, match="row 3 has 0 fields instead of 6"):
        tables.read_cells(path)


@pytest.mark.parametrize("size", [0.3, 0.6, 0.99])
def test_a_compressed_table_cut_short_is_named(tmp_path: Path, size: float) -> None:
    whole = gzip.compress("\n".join([HEAD, *(f"a{n},{n + 1} 2,8000,6,cort," for n in range(500))]).encode())
    path = save(tmp_path / "a.csv.gz", whole[: int(len(whole) * size)])
    with pytest.raises(
        KitError, match=r"a\.csv\.gz cannot be read as a CSV table .*copy or download it again"
    ):
        tables.read_cells(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no column 'id' (it has: nothing); add it"),
        (b"\n", "has no column 'id' (it has: nothing); add it"),
        (b"image,annotation\n", "has no column 'id' (it has: image, annotation); add it"),
        (b"id,mask\na,1 2\n", "has no column 'annotation' or 'predicted' (it has: id, mask); add one"),
        (b"id;annotation\na;1 2\n", "has no column 'id' (it has: id;annotation)"),
        (b"id,annotation\n\xff\xfe,1 2\n", "cannot be read as a CSV table"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "cannot be read as a CSV table"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError) as caught:
        tables.read_cells(path)
    assert str(caught.value).startswith(f"{path} {problem}")


def test_plain_text_that_claims_to_be_compressed_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="cannot be read as a CSV table"):
        tables.read_cells(save(tmp_path / "a.csv.gz", b"id,annotation\n"))


def test_of_all_real_annotations_none_is_lost(real_annotations: Path) -> None:
    frames = tables.read_cells(real_annotations)
    assert (len(frames), sum(len(f.cells) for f in frames)) == (506, 41_479)
    assert {(f.height, f.width) for f in frames} == {(520, 704)}


# ------------------------------------------------------------------------------------- a part at a time


ROWS = [f"{name},{start} 2,8,6,cort,s{name}" for name in "abcd" for start in (1, 4, 9)]


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 5, 100])
def test_tables_read_in_parts_are_the_same(tmp_path: Path, monkeypatch, rows_at_once: int) -> None:
    path = table(tmp_path / "a.csv", *ROWS, "e,,8,6,,", "")
    whole = tables.read_cells(path)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows_at_once)
    assert tables.read_cells(path) == list(tables.iter_cells(path)) == whole
    assert [(f.id, len(f.cells), f.category, f.group) for f in whole[3:]] == [
        ("d", 3, "cort", "sd"),
        ("e", 0, None, None),
    ]
    assert tables.read_sizes(path) == dict.fromkeys("abcde", (6, 8))


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_scattered_rows_are_gathered_or_refused_whatever_the_part(
    tmp_path, monkeypatch, rows_at_once
) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows_at_once)
    path = table(tmp_path / "a.csv", "a,1 1,8,6,cort,", "b,1 1,8,6,cort,", "b,3 1,8,6,,", "a,5 1,8,6,cort,")
    a, b = tables.read_cells(path)
    assert (texts(a), texts(b)) == (["1 1", "5 1"], ["1 1", "3 1"])
    if rows_at_once < 100:
        with pytest.raises(tables.ScatteredRows, match="image a do not stand together"):
            list(tables.iter_cells(path))
    else:
        assert list(tables.iter_cells(path)) == [a, b]


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("e,1 1 1,8,6,cort,", r"row 14 \(id e\): 3 numbers"),
        ("a,1 1,8,7,cort,", r"row 14 \(id a\): width '8' and height '7'"),
        (",1 1,8,6,cort,", "row 14: the id is empty"),
        ("e,1 1,8", "row 14 has 3 fields instead of 6"),
        ("\ne,1 1,8,6,cort,", "row 14 has 0 fields instead of 6"),
    ],
)
def test_a_bad_row_of_a_later_part_has_its_number(tmp_path, monkeypatch, rows_at_once, row, problem) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows_at_once)
    with pytest.raises(KitError, match=problem):
        tables.read_cells(table(tmp_path / "a.csv", *ROWS, row))
