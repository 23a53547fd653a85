"""Folders of one's own in every layout, each with two images of 6 x 8 pixels and cells worked out by hand."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import roifile
import tifffile
from PIL import Image

from kitlib.data import competition
from kitlib.data.config import ReadingConfig
from kitlib.data.dataset import locate, open_folder, prepared
from kitlib.errors import KitError
from kitlib.masks import rle

LABELS = np.zeros((6, 8), np.uint8)
LABELS[0:2, 0:3] = 1
LABELS[3:6, 4:8] = 2
CELLS = ["1 3 9 3", "29 4 37 4 45 4"]
"""The two cells of LABELS as the competition writes masks."""


@pytest.fixture
def put(tmp_path, write_image):
    """``put("images/a.png", ...)``: images, and label images where the name is that of one."""

    def make(*names, labels=LABELS):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if any(word in name.lower() for word in ("labels", "mask", "_seg", "_label")):
                Image.fromarray(labels).save(path)
            else:
                write_image(path, 6, 8)
        return tmp_path / "data"

    return make


def texts(frame):
    return [rle.to_text(cell.mask) for cell in frame.cells]


def ids(frames):
    return [frame.id for frame in frames]


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.png", "images/b.png", "labels/a.png", "labels/b.png"),
        ("images/a.png", "images/b.png", "masks/a.tif", "masks/b.tif"),
        ("Images/a.tif", "Images/b.tif", "Labels/a.png", "Labels/b.png"),
        ("images/a.png", "images/b.png", "labels/a_mask.png", "labels/b_mask.png"),
        ("a.png", "b.png", "a_masks.png", "b_masks.png"),
        ("a.tif", "b.tif", "a_cp_masks.png", "b_cp_masks.png"),
        ("a_img.png", "b_img.png", "a_masks.png", "b_masks.png"),
        ("a.png", "b.png", "a_label.png", "b_labels.png"),
        ("a.png", "b.png", "a_seg.png", "b_seg.png"),
        ("a.ome.tif", "b.ome.tif", "a_masks.ome.tif", "b_masks.tif"),
        ("train/images/a.png", "train/images/b.png", "train/labels/a.png", "train/labels/b.png"),
        ("images/train/a.png", "images/train/b.png", "labels/train/a.png", "labels/train/b.png"),
        ("train/a.png", "val/b.png", "train/a_masks.png", "val/b_masks.png"),
    ],
    ids=lambda names: names[-1],
)
def test_label_images_beside_images(put, names):
    dataset = open_folder(put(*names))
    assert dataset.layout == "2 images with label images"
    assert [frame.id.removesuffix("_img") for frame in dataset.labelled] == ["a", "b"]
    assert [texts(frame) for frame in dataset.labelled] == [CELLS, CELLS]
    assert (dataset.unlabelled, dataset.test, dataset.findings) == ([], [], [])
    assert dataset.categories == ("cell",)
    assert {frame.category for frame in dataset.labelled} == {"cell"}


def test_other_suffixes(put):
    data = put("a.png", "b.png")
    for name in ("a-cells.png", "b-cells.png"):
        Image.fromarray(LABELS).save(data / name)
    dataset = open_folder(data, ReadingConfig(mask_suffixes=("-cells",)))
    assert [texts(frame) for frame in dataset.labelled] == [CELLS, CELLS]


def test_parts_as_folders(put):
    data = put(
        "train/images/a.png", "train/labels/a.png", "test/b.png", "unlabelled/c.png", "unlabelled/d.png"
    )
    dataset = open_folder(data)
    assert dataset.layout == "1 images with label images; 2 unlabelled images; 1 test images"
    parts = dataset.labelled, dataset.unlabelled, dataset.test
    assert [ids(part) for part in parts] == [["a"], ["c", "d"], ["b"]]


def test_without_parts_images_without_cells_are_unlabelled(put):
    dataset = open_folder(put("images/a.png", "images/b.png", "labels/a.png"))
    assert (ids(dataset.labelled), ids(dataset.unlabelled)) == (["a"], ["b"])
    assert dataset.findings == []


def test_an_image_of_the_training_part_without_cells_is_reported(put):
    dataset = open_folder(put("train/a.png", "train/b.png", "train/a_masks.png"))
    assert (ids(dataset.labelled), ids(dataset.unlabelled)) == (["a"], ["b"])
    assert dataset.findings == [("train/b.png", "has no file with its cells", "taken for unlabelled")]


def test_annotated_test_images_are_the_truth(put):
    names = ("train/a.png", "train/a_masks.png", "test/b.png", "test/b_masks.png", "test/c.png")
    dataset = open_folder(put(*names))
    assert [(frame.id, frame.cells) for frame in dataset.test] == [("b", ()), ("c", ())]
    assert [(frame.id, texts(frame)) for frame in dataset.truth] == [("b", CELLS)]


def test_an_image_without_cells_is_labelled(put):
    data = put("images/a.png")
    put("labels/a.png", labels=np.zeros((6, 8), np.uint8))
    (frame,) = open_folder(data).labelled
    assert (frame.cells, frame.category) == ((), "cell")


# ------------------------------------------------------------------------------------------ folders

PLATES = ("A/images/x.png", "A/labels/x.png", "B/images/x.png", "B/labels/x.png")


@pytest.mark.parametrize(
    "names",
    [
        PLATES,
        ("images/A/x.png", "images/B/x.png", "labels/A/x.png", "labels/B/x.png"),
        ("A/x.png", "A/x_masks.png", "B/x.png", "B/x_masks.png"),
        ("train/A/x.png", "train/A/x_masks.png", "train/B/x.png", "train/B/x_masks.png"),
    ],
)
def test_one_name_in_two_folders(put, names):
    frames = open_folder(put(*names)).labelled
    assert ids(frames) == ["A__x", "B__x"]
    assert {(frame.category, frame.group) for frame in frames} == {("cell", None)}


def test_folders_are_categories_or_groups(put):
    data = put(*PLATES)
    dataset = open_folder(data, ReadingConfig(folders_are="category"))
    assert dataset.categories == ("A", "B")
    assert [(f.category, {c.category for c in f.cells}) for f in dataset.labelled] == [
        ("A", {"A"}),
        ("B", {"B"}),
    ]
    frames = open_folder(data, ReadingConfig(folders_are="group")).labelled
    assert [frame.group for frame in frames] == ["A", "B"]


def test_ids_that_would_be_one(put):
    dataset = open_folder(put("A/x.png", "A/x_masks.png", "A__x.png", "A__x_masks.png"))
    assert len(dataset.labelled) == 1
    ((file, fault, action),) = dataset.findings
    assert (file, action) == ("A/x.png", "left out")
    assert fault.startswith("would have the id of ")


def test_two_files_of_one_name(put):
    dataset = open_folder(put("images/a.png", "images/a.tif", "labels/a.png"))
    assert dataset.labelled[0].path.name == "a.png"
    assert dataset.findings == [
        ("images/a.tif", "has the name of a.png; leave one file of that name", "left out")
    ]


def test_names_from_a_mac_s_zip(put):
    # The image's name is composed, the label image's is not.
    data = put(
        "images/Zelle_\u00e4.png", "labels/Zelle_a\u0308.png", "__MACOSX/images/._x.png", ".hidden/a.png"
    )
    dataset = open_folder(data)
    assert ids(dataset.labelled) == ["Zelle_\u00e4"]
    assert (dataset.unlabelled, dataset.findings) == ([], [])


# ------------------------------------------------------------------------------------------ other annotations


def test_one_mask_file_a_cell(put):
    data = put(
        "stage1_train/8f/images/8f.png", "stage1_train/90/images/90.png", "stage1_test/91/images/91.png"
    )
    for image in ("8f", "90"):
        for number in (1, 2):
            put(f"stage1_train/{image}/masks/m{number}.png", labels=(number == LABELS).astype(np.uint8) * 255)
    dataset = open_folder(data)
    assert dataset.layout == "2 images with one mask file a cell; 1 test images"
    assert ids(dataset.labelled) == ["8f", "90"]
    assert [texts(frame) for frame in dataset.labelled] == [CELLS, CELLS]
    assert ids(dataset.test) == ["91"]
    assert dataset.findings == []


def test_cellpose(put):
    data = put("a.png", "a_flows.tif")
    np.save(data / "a_seg.npy", {"masks": LABELS.astype(np.uint16), "filename": "a.png", "flows": [None]})
    dataset = open_folder(data)
    assert dataset.layout == "1 images with Cellpose's _seg.npy files"
    assert texts(dataset.labelled[0]) == CELLS
    assert dataset.findings == []


def test_of_two_annotations_one_is_taken(put):
    data = put("a.png", "a_cp_masks.png")
    np.save(data / "a_seg.npy", {"masks": (LABELS == 2).astype(np.uint16)})
    dataset = open_folder(data)
    assert texts(dataset.labelled[0]) == CELLS[1:]
    fault = "is a second annotation of its image, beside a_seg.npy"
    assert dataset.findings == [("a_cp_masks.png", fault, "passed over")]


@pytest.mark.parametrize("name", ["a.zip", "a_rois.zip", "RoiSet_a.zip", "RoiSet.zip", "a.roi"])
def test_rois_of_imagej(put, name):
    data = put("a.png")
    roi = roifile.ImagejRoi.frompoints([[4, 3], [8, 3], [8, 6], [4, 6]], name="one")
    roi.tofile(data / name)
    dataset = open_folder(data)
    assert dataset.layout == "1 images with ROIs of ImageJ"
    assert texts(dataset.labelled[0]) == CELLS[1:]


def coco(names, **image):
    images = [{"id": n, "file_name": name, "height": 6, "width": 8, **image} for n, name in enumerate(names)]
    square = {"category_id": 1, "segmentation": {"size": [6, 8], "counts": [0, 2, 4, 2, 4, 2, 34]}}
    annotations = [{"id": n, "image_id": n, **square} for n in range(len(names))]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "T cell"}]}
    )


@pytest.mark.parametrize(
    ("place", "images", "names"),
    [
        ("cells.json", ("images/a.png", "images/b.png"), ("a.png", "b.png")),
        ("cells.json", ("a.png", "b.png"), ("a.png", "b.png")),
        ("annotations/instances.json", ("images/a.png", "images/b.png"), ("a.png", "b.png")),
        ("train/_annotations.coco.json", ("train/a.png", "train/b.png"), ("a.png", "b.png")),
    ],
)
def test_coco(put, place, images, names):
    data = put(*images)
    (data / place).parent.mkdir(exist_ok=True)
    (data / place).write_text(coco(names))
    dataset = open_folder(data)
    assert dataset.layout == "2 images with outlines in COCO JSON"
    assert ids(dataset.labelled) == ["a", "b"]
    assert [texts(frame) for frame in dataset.labelled] == [CELLS[:1], CELLS[:1]]
    assert (dataset.categories, dataset.findings) == (("T cell",), [])


def test_coco_of_plates(put):
    data = put("images/A/x.png", "images/B/x.png")
    (data / "cells.json").write_text(coco(["A/x.png", "B/x.png"]))
    assert ids(open_folder(data).labelled) == ["A__x", "B__x"]


def test_coco_of_another_size(put):
    data = put("a.png", "b.png", "b_masks.png")
    (data / "cells.json").write_text(coco(["a.png"], height=7))
    dataset = open_folder(data)
    assert ids(dataset.labelled) == ["b"]
    faults = {finding.file: finding.fault for finding in dataset.findings}
    assert faults["a.png"].startswith("is 8 wide, 6 high, but its COCO file says width 8, height 7")


def test_json_of_something_else_is_passed_over(put):
    data = put("a.png", "a_masks.png")
    (data / "settings.json").write_text('{"zoom": 20}')
    (data / "cut.json").write_text('{"images": [')
    dataset = open_folder(data)
    assert ids(dataset.labelled) == ["a"]
    assert [finding.file for finding in dataset.findings] == ["cut.json", "settings.json"]


# ------------------------------------------------------------------------------------------ faults


def test_all_faults_are_listed(put):
    data = put("images/a.png", "images/b.png", "images/c.png", "images/d.png", "images/e.png", "images/f.png")
    put("labels/a.png", "labels/lone.png")
    put("labels/b.png", labels=np.where(LABELS, 255, 0).astype(np.uint8))
    put("labels/c.jpg")
    put("labels/d.png", labels=LABELS[:5])
    put("labels/e.png")
    (data / "images" / "e.png").write_bytes((data / "images" / "e.png").read_bytes()[:50])
    put("labels/f.png")
    tifffile.imwrite(data / "images" / "f.tif", np.zeros((3, 6, 8), np.uint8), photometric="minisblack")
    (data / "images" / "f.png").unlink()
    dataset = open_folder(data)
    assert ids(dataset.labelled) == ["a"]
    faults = {finding.file: finding for finding in dataset.findings}
    expected = {
        "labels/b.png": "is a mask of all cells together: its only number, 255, lies in 2 parts",
        "labels/c.jpg": "is compressed lossily",
        "labels/d.png": "is 8 wide, 5 high, but its image d.png 8 wide, 6 high; replace the one",
        "images/e.png": "cannot be read",
        "images/f.tif": "holds several pictures (axes: Q 3, Y 6, X 8); choose by plane (0 to 2) or",
        "labels/lone.png": "has no image of its name",
    }
    assert faults.keys() == expected.keys()
    for file, text in expected.items():
        assert text in faults[file].fault
    assert open_folder(data, ReadingConfig(relabel=True, plane=1)).findings[-1].file != "images/f.tif"


def test_an_error_shows_the_first_faults(put):
    data = put(*(f"images/{name}.png" for name in "abcde"))
    put(*(f"labels/{name}.png" for name in "abcde"), labels=np.where(LABELS, 255, 0).astype(np.uint8))
    with pytest.raises(
        KitError, match=r"holds no image that can be used: labels/a\.png .*; and 2 more$"
    ) as error:
        open_folder(data)
    assert str(error.value).count("is a mask of all cells together") == 3
    assert len(open_folder(data, ReadingConfig(relabel=True)).labelled[0].cells) == 2


def test_a_malicious_file_of_cellpose(put, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "trapped"), "w")

    data = put("a.png")
    np.save(data / "a_seg.npy", {"masks": LABELS, "trap": Trap()}, allow_pickle=True)
    with pytest.raises(KitError, match=r"a_seg\.npy is refused: loading it would run (io|_io)\.open"):
        open_folder(data)
    assert not (tmp_path / "trapped").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / "trapped").exists()


def test_more_cells_than_are_predicted(put, write_image):
    data = put("a.png")
    write_image(data / "a.png", 64, 64)
    Image.fromarray(np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64)).save(data / "a_masks.png")
    dataset = open_folder(data)
    assert len(dataset.labelled[0].cells) == 4096
    fault = "holds 4096 cells; by default, 1000 are predicted"
    assert dataset.findings == [("a.png", fault, "all are read; raise max_cells to predict as many")]


def test_turned_photographs(put):
    data = put("labels/a.png", "labels/b.png")
    (data / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    # Shown, it is 6 high and 8 wide, as the label image of "a"; that of "b" was drawn on it as stored.
    for name in "ab":
        Image.fromarray(np.zeros((8, 6), np.uint8)).save(data / "images" / f"{name}.jpg", exif=exif)
    # Turned clockwise, its last row becomes the first column.
    stored = np.rot90(LABELS)
    Image.fromarray(stored).save(data / "labels" / "b.png")
    dataset = open_folder(data)
    assert [(frame.height, frame.width) for frame in dataset.labelled] == [(6, 8), (6, 8)]
    assert [texts(frame) for frame in dataset.labelled] == [CELLS, CELLS]
    fault = "was drawn on the image as stored, not as Exif turns it"
    assert dataset.findings == [("labels/b.png", fault, "turned with it")]


@pytest.mark.parametrize("names", [(), ("notes.txt",)])
def test_a_folder_without_images(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("cells")
    with pytest.raises(KitError, match="holds no image; put PNG or TIFF images there"):
        open_folder(tmp_path)
    with pytest.raises(KitError, match="nowhere is not a folder; point --data at"):
        open_folder(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------ real folders


def test_the_competition_s_folder(competition_folder):
    for data in (competition_folder, competition_folder.parent):
        dataset = open_folder(data)
        assert (
            dataset.layout
            == "the competition's folder: 3 images in train.csv; 4 unlabelled images; 2 test images"
        )
        assert dataset.labelled == competition.labelled(competition_folder)
        assert dataset.test == competition.test(competition_folder)
        assert dataset.categories == competition.CATEGORIES
        assert (len(dataset.unlabelled), dataset.findings) == (4, [])


def test_a_missing_table_of_the_competition_is_named(competition_folder):
    (competition_folder / "train.csv").unlink()
    with pytest.raises(KitError, match=r"train\.csv does not exist; copy or download it"):
        open_folder(competition_folder)


def test_487_real_images_of_nuclei(real_data):
    dataset = open_folder(real_data / "dsb2018-fluo")
    assert dataset.layout == "487 images with label images; 54 test images"
    assert sum(len(frame.cells) for frame in dataset.labelled) == 20562
    (finding,) = dataset.findings
    assert finding.fault == "has the same number on parts that lie far apart: 39"


def test_what_a_folder_is(competition_folder, put, tmp_path):
    assert locate(competition_folder.parent) == competition_folder
    own = put("plate/a.png")
    assert locate(own) == own
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(KitError, match=r"holds neither the competition's train\.csv nor any image"):
        locate(empty)
    with pytest.raises(KitError, match="is not a folder"):
        locate(tmp_path / "nowhere")


def test_images_are_prepared_once_for_training(put, tmp_path):
    data = put("train/a.png", "train/a_masks.png")
    tifffile.imwrite(data / "test_me.tif", np.full((2, 6, 8), [[[7]], [[900]]], np.uint16))
    (data / "test").mkdir()
    (data / "test_me.tif").rename(data / "test" / "b.tif")
    reading = ReadingConfig(plane=1)
    dataset = prepared(open_folder(data, reading), reading, tmp_path / "cache")
    assert dataset.labelled[0].path == data / "train" / "a.png"
    assert dataset.test[0].path.parent == tmp_path / "cache"
