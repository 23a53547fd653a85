"""LIVECell's COCO files as frames: layouts of file and folder, kinds of segmentation, the real images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from kitlib import rle
from kitlib.data import livecell
from kitlib.errors import KitError

MCF7, HUH7 = "MCF7_Phase_G4_2_02d16h00m_1.tif", "Huh7_Phase_A10_1_02d12h00m_3.tif"


@pytest.fixture
def document():
    """Two images of 20 x 30 pixels; three cells on the first, none on the second."""
    square = [2, 3, 6, 3, 6, 7, 2, 7]  # columns 2-5, rows 3-6
    two_parts = [[10, 1, 12, 1, 12, 3, 10, 3], [20, 10, 24, 10, 24, 12, 20, 12]]
    mask = np.zeros((20, 30), np.uint8)
    mask[15:18, 0:5] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    shapes = [[square], two_parts, {"size": [20, 30], "counts": compressed["counts"].decode()}]
    return {
        "images": [
            {"id": 7, "file_name": MCF7, "height": 20, "width": 30},
            {"id": 9, "file_name": HUH7, "height": 20, "width": 30},
        ],
        "annotations": [
            {"id": 70 + i, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": shape}
            for i, shape in enumerate(shapes)
        ],
        "categories": [{"id": 1, "name": "cell", "supercategory": "cell"}],
    }


@pytest.fixture
def folder(tmp_path, write_image):
    """``folder(document, *image folders)``: an unpacked LIVECell, its images in these folders."""

    def make(document, places=("livecell_train_val_images/MCF7", "livecell_train_val_images/Huh7")):
        root = tmp_path / "LIVECell_dataset_2021"
        for image, place in zip(document["images"], places, strict=True):
            write_image(root / "images" / place / image["file_name"], 20, 30)
        path = root / "annotations" / "LIVECell" / "livecell_coco_train.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
        return root

    return make


def pixels(cell):
    return {(int(y), int(x)) for y, x in np.argwhere(rle.to_mask(cell.mask))}


def block(rows, columns):
    return {(y, x) for y in rows for x in columns}


def test_polygons_and_run_lengths_become_the_pixels_they_enclose(folder, document):
    first, second = livecell.load(folder(document))
    square, two_parts, strip = first.cells
    assert pixels(square) == block(range(3, 7), range(2, 6))
    assert pixels(two_parts) == block(range(1, 3), (10, 11)) | block((10, 11), range(20, 24))
    assert pixels(strip) == block(range(15, 18), range(5))
    assert second.cells == ()


def test_annotations_keyed_by_id_read_as_a_list_does(folder, document):
    root = folder(document)
    expected = livecell.load(root)
    document["annotations"] = {str(a["id"]): a for a in document["annotations"]}
    (root / "annotations" / "LIVECell" / "livecell_coco_train.json").write_text(json.dumps(document))
    assert livecell.load(root) == expected


def test_uncompressed_run_lengths(folder, document):
    # Column-major, as COCO counts: 3 pixels down the first column, then, 20 later, 2 down the second one.
    document["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": [0, 3, 17, 2, 578]}
    cell = livecell.load(folder(document))[0].cells[0]
    assert pixels(cell) == block(range(3), [0]) | block(range(2), [1])


def test_crowds_and_shapes_without_pixels_are_left_out_aloud(folder, document, caplog):
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1]["segmentation"] = [[5, 5, 5, 5]]
    assert len(livecell.load(folder(document))[0].cells) == 1
    assert "1 crowd regions are left out" in caplog.text
    assert "1 annotations cover no pixel" in caplog.text


def test_a_flat_polygon_counts_as_one(folder, document):
    document["annotations"][0]["segmentation"] = document["annotations"][0]["segmentation"][0]
    assert pixels(livecell.load(folder(document))[0].cells[0]) == block(range(3, 7), range(2, 6))


@pytest.mark.parametrize(
    "places",
    [
        ("livecell_train_val_images/MCF7", "livecell_test_images/Huh7"),  # Kaggle's and LIVECell's own
        ("livecell_train_val_images", "livecell_train_val_images"),  # without a folder a line
        (".", "."),  # flat
    ],
)
def test_images_are_found_in_any_layout(folder, document, places):
    root = folder(document, places)
    assert [frame.path.name for frame in livecell.load(root)] == [MCF7, HUH7]


def test_the_folder_the_competition_and_its_parent_all_lead_there(tmp_path, folder, document):
    root = folder(document)
    inside = tmp_path / "data" / "sartorius-cell-instance-segmentation" / root.name
    inside.parent.mkdir(parents=True)
    root.rename(inside)
    for data in (inside, inside.parent, inside.parent.parent):
        assert len(livecell.load(data)) == 2


def test_lines_name_cells_and_wells_group_frames(folder, document):
    root = folder(document)
    one, line = livecell.load(root), livecell.load(root, categories="line")
    assert [frame.category for frame in one] == ["cell", "cell"]
    assert {cell.category for cell in one[0].cells} == {"cell"}
    assert [frame.category for frame in line] == ["MCF7", "Huh7"]
    assert {cell.category for cell in line[0].cells} == {"MCF7"}
    assert [frame.group for frame in one] == ["MCF7_G4", "Huh7_A10"]
    assert livecell.well("microglia_3") is None


@pytest.mark.parametrize(
    ("arguments", "word"), [({"split": "training"}, "train"), ({"categories": "lines"}, "line")]
)
def test_unknown_choices_suggest_the_nearest(folder, document, arguments, word):
    with pytest.raises(KitError, match=f"did you mean '{word}'"):
        livecell.load(folder(document), **arguments)


@pytest.mark.parametrize(
    ("split", "images", "cells"), [("train", 9, 2088), ("val", 2, 227), ("test", 3, 1210)]
)
def test_real_images_agree_with_pycocotools(real_competition, split, images, cells):
    frames = livecell.load(real_competition, split)
    name = f"annotations/LIVECell/livecell_coco_{split}.json"
    peer = COCO(real_competition / "LIVECell_dataset_2021" / name)
    assert (len(frames), sum(len(frame.cells) for frame in frames)) == (images, cells)
    for frame, image in zip(frames, peer.imgs.values(), strict=True):
        assert frame.path.name == image["file_name"]
        for cell, annotation in zip(frame.cells, peer.imgToAnns[image["id"]][:40], strict=False):
            assert np.array_equal(rle.to_mask(cell.mask), peer.annToMask(annotation))
