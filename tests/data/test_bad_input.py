"""Bad data sets: each is refused in one sentence that names the file, the row or key, and the remedy."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from kitlib.data import coco as coco_files
from kitlib.data import competition, livecell
from kitlib.data.images import read_image
from kitlib.errors import KitError


def refused(call, *arguments):
    with pytest.raises(KitError) as error:
        call(*arguments)
    return str(error.value)


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# ------------------------------------------------------------------------- the competition's folder

CORT = "001234567890,10 3 18 3,8,6,cort"  # row 4

ROWS = {
    "odd count": ("10 3 18", "3 numbers, an odd count; every start needs a length"),
    "zero length": ("10 0", "length 0 at start 10; lengths must be at least 1"),
    "negative length": ("10 -3", "length -3 at start 10; lengths must be at least 1"),
    "start before the frame": ("0 3", "leaves the 8 x 6 frame's pixels 1 to 48"),
    "end after the frame": ("47 3", "leaves the 8 x 6 frame's pixels 1 to 48"),
    "unsorted": ("18 3 10 3", "start 10 comes before the end of the pair before it; sort the pairs"),
    "overlapping": ("10 3 12 3", "start 12 comes before the end of the pair before it"),
    "a word": ("10 three", "'three' is not a whole number; write 'start length' pairs"),
    "a fraction": ("10 3.5", "'3.5' is not a whole number"),
}


@pytest.mark.parametrize(("annotation", "problem"), ROWS.values(), ids=ROWS)
def test_a_bad_annotation_is_named_by_row_and_id(competition_folder, annotation, problem):
    edit(competition_folder / "train.csv", "10 3 18 3", annotation)
    message = refused(competition.labelled, competition_folder)
    assert f"{competition_folder / 'train.csv'} row 4 (id 001234567890): " in message
    assert problem in message


TABLES = {
    "width is not the image's": (
        (CORT, CORT.replace(",8,", ",9,")),
        r"train\.csv row 4 \(id 001234567890\) says width 9, height 6, "
        r"but \S+001234567890\.png is 8 wide, 6 high; correct the numbers or restore the image",
    ),
    "width and height swapped": (
        (CORT, CORT.replace(",8,6,", ",6,8,")),
        r"row 4 \(id 001234567890\) says width 6, height 8, but .* is 8 wide, 6 high",
    ),
    "width is no number": (
        (CORT, CORT.replace(",8,", ",wide,")),
        r"train\.csv row 4 \(id 001234567890\): width",
    ),
    "sizes of one image differ": (
        ("1e1234567890,21 4,8,6", "1e1234567890,21 4,8,7"),
        r"row 6 \(id 1e1234567890\).*alike in all its rows",
    ),
    "no cell type": (
        (",cort,", ",,"),
        r"train\.csv row 4 \(id 001234567890\): cell_type is blank; write astro",
    ),
    "no id": ((CORT, CORT.replace("001234567890", "")), r"train\.csv row 4: the id is empty"),
    "an id without an image": (
        (CORT, CORT.replace("0012", "9912")),
        # What lacks rows is found first: it is the same slip seen from the other side.
        r"train\.csv has no row for 1 of the images in \S+train: 001234567890; add their rows",
    ),
    "a row cut short": (
        ("1e1234567890,21 4,8,6,astro,,,,\n", "1e1234567890,21"),
        r"train\.csv row 6 .*cut short",
    ),
}


@pytest.mark.parametrize(("change", "problem"), TABLES.values(), ids=TABLES)
def test_a_bad_row_is_named(competition_folder, change, problem):
    edit(competition_folder / "train.csv", *change)
    assert re.search(problem, refused(competition.labelled, competition_folder))


@pytest.mark.parametrize("column", competition.COLUMNS)
def test_a_missing_column_is_named(competition_folder, column):
    header, rest = (competition_folder / "train.csv").read_text().split("\n", 1)
    names = ["my_" + name if name == column else name for name in header.split(",")]
    (competition_folder / "train.csv").write_text(",".join(names) + "\n" + rest)
    message = refused(competition.labelled, competition_folder)
    assert f"{competition_folder / 'train.csv'} has no column {column} (it has: " in message
    assert "add it, or download the table again" in message


def test_an_empty_table_has_no_column(competition_folder):
    (competition_folder / "train.csv").write_text("")
    assert "has no column" in refused(competition.labelled, competition_folder)


def test_an_id_without_an_image_is_named_by_its_first_row(competition_folder):
    (competition_folder / "train" / "1e1234567890.png").unlink()
    message = refused(competition.labelled, competition_folder)
    assert "train.csv row 5 (id 1e1234567890) has no image 1e1234567890.png in " in message
    assert "copy it there, or delete the id's rows" in message


def test_images_without_rows_are_named(competition_folder, write_image):
    for number in range(5):
        write_image(competition_folder / "train" / f"extra{number}.png")
    message = refused(competition.labelled, competition_folder)
    assert "has no row for 5 of the images in " in message
    assert "extra0, extra1, extra2 and 2 more; add their rows" in message


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("train/0030e5.png", competition.labelled),
        ("test/00a.png", competition.test),
    ],
)
@pytest.mark.parametrize("kept", [0, 20, -40], ids=["empty", "half a header", "no end"])
def test_a_truncated_png_is_met_when_the_data_are_listed(competition_folder, name, load, kept):
    path = competition_folder / name
    path.write_bytes(path.read_bytes()[:kept])
    message = refused(load, competition_folder)
    assert str(path) in message
    assert re.search("replace it|copy or download it again", message)


def test_a_submission_has_to_name_images_that_are_broken_or_gone(competition_folder):
    whole = {f.id: (f.height, f.width) for f in competition.test(competition_folder)}
    broken = competition_folder / "test" / "00a.png"
    broken.write_bytes(b"")
    with (competition_folder / "sample_submission.csv").open("a") as sample:
        sample.write("gone,\n")
    found = competition.submitted(competition_folder)
    assert {f.id: (f.height, f.width) for f in found} == {**whole, "00a": (520, 704), "gone": (520, 704)}
    assert [f.path is None for f in found] == [False, False, True]


def test_a_png_damaged_inside_is_met_when_it_is_read(competition_folder):
    path = competition_folder / "test" / "00a.png"
    data = bytearray(path.read_bytes())
    data[-30:-20] = bytes(10)
    path.write_bytes(data)
    assert len(competition.test(competition_folder)) == 2
    message = refused(read_image, path)
    assert str(path) in message
    assert "copy or download it again" in message


MISSING = {
    "the folder": (
        ".",
        competition.labelled,
        r"is not a folder; point --data at the unpacked competition data",
    ),
    "train.csv": ("train.csv", competition.labelled, r"train\.csv does not exist; copy or download it"),
    "train": ("train", competition.labelled, r"train is not a folder; check the path, or download the data"),
    "test": ("test", competition.test, r"test is not a folder; check the path, or download the data"),
    "a test image": (
        "test/00b.png",
        competition.test,
        r"sample_submission\.csv row 3 asks for 00b, but \S+test holds no such image; copy or download it",
    ),
}


@pytest.mark.parametrize(("name", "load", "problem"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named(competition_folder, name, load, problem):
    path = competition_folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert re.search(problem, refused(load, competition_folder))


def test_no_test_images(competition_folder):
    for path in (competition_folder / "test").iterdir():
        path.unlink()
    assert f"{competition_folder / 'test'} holds no images; copy" in refused(
        competition.test, competition_folder
    )


@pytest.mark.parametrize("kept", [0, 20, -40], ids=["empty", "half a header", "no end"])
def test_a_truncated_unlabelled_image_is_left_out_with_a_word(competition_folder, kept):
    path, said = competition_folder / "train_semi_supervised" / "1e55de6c2a34.png", []
    path.write_bytes(path.read_bytes()[:kept])
    frames = competition.unlabelled(competition_folder, said.append)
    assert (len(frames), "1e55de6c2a34" in {f.id for f in frames}) == (3, False)
    assert len(said) == 1
    assert said[0].startswith(f"left out: {path}")


def no_images(folder):
    """A folder of other things."""
    for path in folder.iterdir():
        path.unlink()
    (folder / "notes.txt").write_text("to be copied")
    (folder / "cort.png").write_text("no picture")


@pytest.mark.parametrize("change", [shutil.rmtree, no_images], ids=["missing", "other files"])
def test_without_unlabelled_images_there_is_a_word_and_no_frame(competition_folder, change, capsys):
    folder = competition_folder / "train_semi_supervised"
    change(folder)
    assert competition.unlabelled(competition_folder) == []
    *others, last = capsys.readouterr().out.splitlines()
    assert last == f"{folder} holds no image that can be read: there will be no pseudo labels"
    assert [line for line in others if "cort.png is not an image" not in line] == []


def test_a_folder_of_something_else(tmp_path):
    message = refused(competition.labelled, tmp_path)
    assert f"{tmp_path} holds no train.csv, train/ or test/" in message
    assert "point --data at the unpacked competition data" in message


# ------------------------------------------------------------------------- LIVECell and other COCO files


@pytest.fixture
def coco(tmp_path, write_image):
    """A LIVECell folder of one image and one cell; ``coco(change)`` applies a change to its JSON."""
    image = {"id": 1, "file_name": "MCF7_Phase_G4_2_02d16h00m_1.tif", "height": 6, "width": 8}
    cell = {"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4]]}
    root = tmp_path / "LIVECell_dataset_2021"
    path = root / "annotations" / "LIVECell" / "livecell_coco_train.json"
    path.parent.mkdir(parents=True)
    write_image(root / "images" / "livecell_train_val_images" / "MCF7" / image["file_name"])

    def make(change=lambda document: None):
        document = {"images": [image], "annotations": [cell], "categories": [{"id": 1, "name": "cell"}]}
        change(document)
        path.write_text(json.dumps(document))
        return path

    return make


def cell(**values):
    return lambda document: document["annotations"][0].update(values)


def image(**values):
    return lambda document: document["images"][0].update(values)


ANNOTATIONS = {
    "an unknown image": (
        cell(image_id=9),
        "belongs to image_id 9, which the file does not list; add the image or",
    ),
    "an unknown category": (
        cell(category_id=9),
        "has category_id 9, which 'categories' does not list; add the",
    ),
    "no outline": (cell(segmentation=[]), "it has no segmentation; give polygons"),
    "odd polygon": (
        cell(segmentation=[[1, 1, 4, 1, 4]]),
        "a polygon has an odd count of numbers; give polygons",
    ),
    "words": (cell(segmentation=[["a", "b"] * 3]), "cannot be read as a mask"),
    "not finite": (
        cell(segmentation=[[1, 1, 4, 1, 1e308, 1e308, 1e308, 4]]),
        "a polygon leads more than 1,000,000 pixels away; give",
    ),
    "far to the left": (
        cell(segmentation=[-1_000_001, 1, 4, 1, 4, 4]),
        "a polygon leads more than 1,000,000 pixels away; give",
    ),
    "far, and a word": (cell(segmentation=[[1, 1, 4, 2e6, "b", 4]]), "got `str`"),
    "another size": (
        cell(segmentation={"size": [8, 6], "counts": [48]}),
        "its size is [8, 6], the image's is [6, 8]",
    ),
    "short counts": (
        cell(segmentation={"size": [6, 8], "counts": [10, 3]}),
        "its counts make 13 pixels, the image has 48",
    ),
    "negative counts": (cell(segmentation={"size": [6, 8], "counts": [50, -2]}), "its counts make 48 pixels"),
    # 48 pixels outside, then a number without its end.
    "cut text": (cell(segmentation={"size": [6, 8], "counts": "`1P"}), "its counts are no whole text"),
    "long text": (cell(segmentation={"size": [6, 8], "counts": "zzzz0ZZ"}), "cannot be read as a mask"),
    "damaged text": (cell(segmentation={"size": [6, 8], "counts": "\u00e9"}), "cannot be read as a mask"),
    "no counts": (cell(segmentation={"size": [6, 8]}), "cannot be read as a mask"),
}


@pytest.mark.parametrize(("change", "problem"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_a_bad_annotation_is_named_by_its_id(coco, change, problem):
    path = coco(change)
    message = refused(livecell.load, path.parents[2])
    assert f"{path} annotation 5 " in message
    assert problem in message


IMAGES = {
    "size": (
        image(height=7),
        r"livecell_coco_train\.json image 1 \(MCF7\S+\) says width 8, height 7, but \S+ is 8 wide",
    ),
    "no size": (
        lambda d: d["images"][0].pop("width"),
        r"livecell_coco_train\.json .*required field `width` - at `\$\.images\[0\]`; correct that entry",
    ),
    "no file": (
        image(file_name="MCF7_Phase_Z.tif"),
        r"1 of the images in \S+train\.json are not under \S+images: MCF7_Phase_Z\.tif; copy or download",
    ),
    "no images": (lambda d: d.pop("images"), r"not a COCO file of instances: .* required field `images`"),
    "no annotations": (lambda d: d.pop("annotations"), r"not a COCO file .* required field `annotations`"),
    "a number for the annotations": (lambda d: d.update(annotations=3), r"got `int` - at `\$\.annotations`"),
    "a name that is a number": (image(file_name=3), r"got `int` - at `\$\.images\[0\]\.file_name`"),
    "an id that is a list": (image(id=[1]), r"got `array` - at `\$\.images\[0\]\.id`"),
    "an image that is text": (lambda d: d["images"].append("x"), r"got `str` - at `\$\.images\[1\]`"),
    "an endless size": (image(height=1e400), r"is not whole JSON .*copy or download it again"),
    "no height": (image(height=0), r"image 1 has width 8 and height 0; write the image's size in pixels"),
    "half a pixel": (image(height=6.5), r"image 1 has width 8 and height 6\.5; write"),
}


@pytest.mark.parametrize(("change", "problem"), IMAGES.values(), ids=IMAGES)
def test_a_bad_image_entry_is_named(coco, change, problem):
    assert re.search(problem, refused(livecell.load, coco(change).parents[2]))


def test_two_images_that_cannot_be_told_apart(coco, tmp_path, write_image):
    other = tmp_path / "LIVECell_dataset_2021" / "images" / "other"
    write_image(other / "MCF7_Phase_G4_2_02d16h00m_1.png")
    write_image(other / "b.png")

    def add(**values):
        return lambda d: d["images"].append({**d["images"][0], **values})

    same_name = coco(add(id=2, file_name="MCF7_Phase_G4_2_02d16h00m_1.png"))
    assert "has two images with the name 'MCF7_Phase" in refused(livecell.load, same_name.parents[2])
    assert "has two images with id 1; give" in refused(livecell.load, coco(add(file_name="b.png")).parents[2])


def test_a_json_cut_short(coco):
    path = coco()
    path.write_text(path.read_text()[:-40])
    for message in (
        refused(livecell.load, path.parents[2]),
        refused(coco_files.read, path, path.parents[2] / "images"),
    ):
        assert str(path) in message
        assert "is not whole JSON" in message
        assert "copy or download it again" in message


def test_no_livecell(tmp_path, coco):
    assert "holds no LIVECell_dataset_2021/" in refused(livecell.load, tmp_path / "elsewhere")
    path = coco()
    assert "livecell_coco_val.json does not exist; download" in refused(
        livecell.load, path.parents[2], ["val"]
    )
    shutil.rmtree(path.parents[2] / "images")
    assert "images, the images of " in refused(livecell.load, path.parents[2])


def test_an_unwritable_export_names_the_path_and_keeps_the_old_file(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    message = refused(coco_files.write, tmp_path / "file" / "cells.json", [])
    assert "cannot write" in message
    assert (tmp_path / "file").read_text() == "not a folder"
