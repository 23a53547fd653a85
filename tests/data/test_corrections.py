"""Corrected cells take the place of the annotated ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kitlib.data import corrections, tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame

SIZE = (6, 8)


def cell(x: int, y: int, category: str = "cort", score: float | None = None) -> Cell:
    return Cell(rle.from_crop(np.ones((2, 2)), x, y, *SIZE), category, score)


def frame(name: str, *cells: Cell, **fields: object) -> Frame:
    return replace(Frame(name, Path(f"{name}.png"), *SIZE, cells, "cort", "well_A1"), **fields)


FRAMES = [frame("a", cell(0, 0), cell(4, 0)), frame("b", cell(2, 2)), frame("c", cell(4, 4))]


def test_corrected_frames_have_the_corrected_cells_and_the_others_their_own(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    corrections.save(path, {"b": frame("b", cell(1, 1), cell(5, 3)), "c": frame("c")})
    applied = corrections.apply(FRAMES, path)
    assert applied[0] is FRAMES[0]
    assert list(applied[1].cells) == [cell(1, 1), cell(5, 3)]
    assert (applied[1].path, applied[1].group) == (Path("b.png"), "well_A1")
    assert list(applied[2].cells) == []
    assert applied[2].category == "cort"


def test_a_corrected_pseudo_label_counts_as_annotated(tmp_path: Path) -> None:
    pseudo = frame("a", cell(0, 0, score=0.8), weight=0.5, ignore=cell(4, 4).mask)
    path = corrections.save(tmp_path / "corrections.csv", {"a": frame("a", cell(0, 1))})
    (applied,) = corrections.apply([pseudo], path)
    assert not applied.pseudo
    assert (applied.weight, applied.ignore) == (1.0, None)


def test_an_image_that_is_not_in_the_data_is_refused(tmp_path: Path) -> None:
    path = corrections.save(tmp_path / "corrections.csv", {"z": frame("z", cell(0, 0))})
    with pytest.raises(KitError, match=r"corrects 1 images that are not among the 3 of the data: z; remove"):
        corrections.apply(FRAMES, path)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    path = corrections.save(tmp_path / "corrections.csv", {"a": frame("a", cell(0, 0))})
    with pytest.raises(KitError, match=r"\(id a\) says width 8, height 6, but the image is 16 wide, 12 high"):
        corrections.apply([Frame("a", None, 12, 16)], path)


def test_a_table_that_is_not_there_is_an_error_to_apply_and_a_beginning_to_save(tmp_path: Path) -> None:
    assert corrections.read(tmp_path / "corrections.csv") == {}
    with pytest.raises(KitError, match="does not exist"):
        corrections.apply(FRAMES, tmp_path / "corrections.csv")


def test_saving_leaves_other_frames_and_takes_out_those_named(tmp_path: Path) -> None:
    path = tmp_path / "corrections_anna.csv"
    corrections.save(path, {"a": FRAMES[0], "b": FRAMES[1]})
    corrections.save(path, {"b": None, "c": FRAMES[2]})
    assert {name: list(found.cells) for name, found in corrections.read(path).items()} == {
        "a": list(FRAMES[0].cells),
        "c": list(FRAMES[2].cells),
    }


def test_the_table_has_the_columns_of_the_competition(tmp_path: Path) -> None:
    path = corrections.save(tmp_path / "corrections.csv", {"c": FRAMES[2], "b": frame("b")})
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == list(tables.ANNOTATION_COLUMNS)
    # 4 x 8 + 4 + 1 is the first pixel of the cell at (4, 4).
    assert lines[1:] == ["c,37 2 45 2,8,6,cort,,,well_A1,", "b,,8,6,cort,,,well_A1,"]


@pytest.mark.parametrize("name", ["train.csv", "corrections.txt", "my_corrections.csv"])
def test_a_file_that_may_be_an_original_is_not_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("precious")
    with pytest.raises(KitError, match=f"cannot be saved as {name}"):
        corrections.save(path, {"a": FRAMES[0]})
    assert path.read_text() == "precious"


def test_a_damaged_table_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text("id,annotation,width,height,cell_type\na,1 1 9,8,6,cort\n")
    before = path.read_bytes()
    with pytest.raises(KitError, match="row 2"):
        corrections.save(path, {"b": FRAMES[1]})
    assert path.read_bytes() == before
