"""Cells to compare in every format, with and without images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib.data import coco, tables
from kitlib.errors import KitError
from kitlib.export import pictures, shapes
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.scoring import open_source

LABELS = np.zeros((6, 8), np.uint8)
LABELS[0:2, 0:3] = 1
LABELS[3:6, 4:8] = 2
MASKS = rle.from_labels(LABELS)
FRAME = Frame("a", None, 6, 8, (Cell(MASKS[0], "cort", 0.9), Cell(MASKS[1], "astro", 0.8)))


def read(path: Path, sizes=None) -> list[Frame]:
    return list(open_source(path).frames(sizes or {}, in_step=True))


def contents(frames: list[Frame]) -> dict[str, list[str]]:
    return {frame.id: [rle.to_text(cell.mask) for cell in frame.cells] for frame in frames}


def expected(*names: str) -> dict[str, list[str]]:
    return {name: [rle.to_text(mask) for mask in MASKS] for name in names}


def put(folder: Path, *names: str, labels: np.ndarray = LABELS) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.png", "b.png"], "a b"),
        (["labels/a.png", "labels/b.tif"], "a b"),
        (["a_labels.tif", "b_cp_masks.png"], "a b"),
        (["plate_1/a.png", "plate_2/a.png"], "plate_1__a plate_2__a"),
        (["test/masks/a.png"], "a"),
    ],
)
def test_label_images_without_images(tmp_path: Path, names: list[str], ids: str) -> None:
    assert contents(read(put(tmp_path / "cells", *names))) == expected(*ids.split())


def test_label_images_beside_images(tmp_path: Path, write_image) -> None:
    folder = put(tmp_path / "cells", "labels/a.png", "labels/b.png")
    for name in "ab":
        write_image(folder / "images" / f"{name}.png", 6, 8)
    assert contents(read(folder)) == expected("a", "b")


def test_annotated_test_images_count(tmp_path: Path, write_image) -> None:
    folder = put(tmp_path / "cells", "train/a_masks.png", "test/b_masks.png")
    write_image(folder / "train" / "a.png", 6, 8)
    write_image(folder / "test" / "b.png", 6, 8)
    assert contents(read(folder)) == expected("a", "b")


def test_a_label_image_of_more_than_16_bits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.where(LABELS > 0, LABELS.astype(np.uint32) + 70_000, 0))
    assert contents(read(tmp_path)) == expected("a")


def test_a_label_image_without_cells_is_a_prediction_of_none(tmp_path: Path) -> None:
    (frame,) = read(put(tmp_path / "cells", "a.png", labels=np.zeros_like(LABELS)))
    assert (frame.id, frame.height, frame.width, frame.cells) == ("a", 6, 8, ())


def test_files_of_cellpose_without_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", {"masks": LABELS}, allow_pickle=True)
    assert contents(read(tmp_path)) == expected("a")


def test_coco_alone(tmp_path: Path) -> None:
    path = coco.write(tmp_path / "cells.json", [FRAME, Frame("none", None, 3, 4)])
    frame, empty = read(path)
    assert replace(frame, category=None) == FRAME
    assert (empty.id, empty.height, empty.width, empty.cells) == ("none", 3, 4, ())
    assert read(tmp_path) == [frame, empty]


def test_the_folders_of_a_coco_file_are_part_of_the_ids(tmp_path: Path) -> None:
    frames = [replace(FRAME, id=f"{p}__a", path=tmp_path / "images" / p / "a.tif") for p in ("p1", "p2")]
    path = coco.write(tmp_path / "cells.json", frames)
    listed = json.loads(path.read_text())["images"]
    assert [image["file_name"] for image in listed] == ["p1/a.tif", "p2/a.tif"]
    assert [frame.id for frame in read(path)] == ["p1__a", "p2__a"]


def test_pages_of_a_file_stay_apart_in_a_coco_file(tmp_path: Path) -> None:
    frames = [replace(FRAME, id=f"stack_p{n}", path=tmp_path / "stack.tif") for n in range(2)]
    assert contents(read(coco.write(tmp_path / "cells.json", frames))) == expected("stack_p0", "stack_p1")


def test_rois_have_the_sizes_of_the_other_side(tmp_path: Path) -> None:
    shapes.write_rois(FRAME, tmp_path / "a")
    source = open_source(tmp_path)
    assert source.lacks_sizes
    assert contents(read(tmp_path, {"a": (6, 8)})) == expected("a")
    with pytest.raises(KitError, match=r"a\.zip does not say how large its image 'a' is"):
        read(tmp_path)


def test_of_what_kit_predict_wrote_the_fullest_is_read(tmp_path: Path) -> None:
    """Beside pictures of outlines, which are no label images, and tables, which are no COCO files."""
    image = np.zeros((6, 8), np.uint8)
    shapes.write_rois(FRAME, tmp_path / "rois" / "a")
    pictures.write_outlines(FRAME, image, tmp_path / "outlines" / "a")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "a.json").write_text('{"image": {}, "cells": []}')
    assert open_source(tmp_path).path == tmp_path / "rois"
    pictures.write_labels(FRAME, tmp_path / "labels" / "a")
    assert open_source(tmp_path).path == tmp_path / "labels"
    assert contents(read(tmp_path)) == expected("a")
    coco.write(tmp_path / "annotations.json", [FRAME])
    assert open_source(tmp_path).path == tmp_path / "annotations.json"
    assert [cell.score for cell in read(tmp_path)[0].cells] == [0.9, 0.8]


def test_a_table_without_sizes(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("id,predicted\na,1 3 9 3\n")
    source = open_source(path)
    assert source.lacks_sizes
    assert [(f.height, f.width) for f in source.frames({"a": (6, 8)}, in_step=True)] == [(6, 8)]
    assert not open_source(tables.write_predictions(tmp_path / "predictions.csv", [FRAME])).lacks_sizes


# ------------------------------------------------------------------------------------------- faults


def test_what_is_doubtful_is_said(tmp_path: Path) -> None:
    source = open_source(put(tmp_path / "cells", "a_masks.png", labels=(LABELS > 0).astype(np.uint8)))
    assert source.faults == ["a_masks.png has a single number, in 2 parts: read as one cell"]
    folder = put(tmp_path / "more", "a_mask.png", "a_label.png")
    assert open_source(folder).faults == ["a_mask.png belongs to the same image as a_label.png: left out"]


def test_a_photograph_is_no_label_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 20, (90, 90)).astype(np.uint8)
    with pytest.raises(KitError, match=r"a\.png looks like a picture, not like a label image"):
        read(put(tmp_path, "a.png", labels=noise))


def test_one_image_in_two_coco_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        coco.write(tmp_path / f"{name}.json", [FRAME])
    with pytest.raises(KitError, match="two COCO files that list the image 'a'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file_name", "height", "words"),
    [
        ("../a.png", 6, "leads out of the folder"),
        ("..", 6, "leads out of the folder"),
        ("a.png", 0, "has width 8 and height 0"),
        ("a.png", 1 << 30, "has width 8 and height 1073741824"),
    ],
)
def test_what_a_coco_file_cannot_say_alone(tmp_path: Path, file_name: str, height: int, words: str) -> None:
    images = [{"id": 1, "file_name": file_name, "height": height, "width": 8}]
    path = tmp_path / "cells.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    with pytest.raises(KitError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "nowhere does not exist"),
        ("nowhere.csv", "nowhere.csv does not exist"),
        ("nowhere.json", "nowhere.json does not exist"),
        ("cells.xlsx", "is neither a CSV table nor a COCO JSON file"),
        ("", "holds no label image, COCO JSON or ROI"),
    ],
)
def test_what_is_no_source_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "cells.xlsx").write_bytes(b"")
    with pytest.raises(KitError, match=words):
        read(tmp_path / name)


def test_an_image_folder_without_cells_is_named(tmp_path: Path, write_image) -> None:
    folder = put(tmp_path / "cells", "labels/b.png")
    write_image(folder / "images" / "a.png", 6, 8)
    with pytest.raises(KitError, match="holds no"):
        read(folder)
