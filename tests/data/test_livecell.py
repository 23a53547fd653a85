"""LIVECell's COCO files as frames: layouts of file and folder, kinds of segmentation, the real images."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from kitlib.data import coco as coco_files
from kitlib.data import livecell
from kitlib.errors import KitError
from kitlib.masks import rle

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
    first, second = livecell.load(folder(document)).frames
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
    cell = livecell.load(folder(document)).frames[0].cells[0]
    assert pixels(cell) == block(range(3), [0]) | block(range(2), [1])


def test_crowds_and_shapes_without_pixels_are_left_out_aloud(folder, document, caplog):
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1]["segmentation"] = [[5, 5, 5, 5]]
    assert len(livecell.load(folder(document)).frames[0].cells) == 1
    assert "has 1 crowd regions, which outline no single cell: left out" in caplog.text
    assert "has 1 annotations that cover no pixel: left out" in caplog.text


def test_a_flat_polygon_counts_as_one(folder, document):
    document["annotations"][0]["segmentation"] = document["annotations"][0]["segmentation"][0]
    assert pixels(livecell.load(folder(document)).frames[0].cells[0]) == block(range(3, 7), range(2, 6))


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
    assert [frame.path.name for frame in livecell.load(root).frames] == [MCF7, HUH7]


def test_the_folder_the_competition_and_its_parent_all_lead_there(tmp_path, folder, document):
    root = folder(document)
    inside = tmp_path / "data" / "sartorius-cell-instance-segmentation" / root.name
    inside.parent.mkdir(parents=True)
    root.rename(inside)
    for data in (inside, inside.parent, inside.parent.parent):
        assert len(livecell.load(data).frames) == 2


def test_lines_name_cells_and_wells_group_frames(folder, document):
    root = folder(document)
    one, line = livecell.load(root).frames, livecell.load(root, categories="line").frames
    assert [frame.category for frame in one] == ["cell", "cell"]
    assert {cell.category for cell in one[0].cells} == {"cell"}
    assert [frame.category for frame in line] == ["MCF7", "Huh7"]
    assert {cell.category for cell in line[0].cells} == {"MCF7"}
    assert [frame.group for frame in one] == ["MCF7_G4", "Huh7_A10"]
    assert livecell.well("microglia_3") is None


@pytest.mark.parametrize(
    ("arguments", "word"), [({"splits": ["training"]}, "train"), ({"categories": "lines"}, "line")]
)
def test_unknown_choices_suggest_the_nearest(folder, document, arguments, word):
    with pytest.raises(KitError, match=f"did you mean '{word}'"):
        livecell.load(folder(document), **arguments)


@pytest.mark.parametrize(
    ("split", "images", "cells"), [("train", 9, 2088), ("val", 2, 227), ("test", 3, 1210)]
)
def test_real_images_agree_with_pycocotools(real_competition, split, images, cells):
    frames = livecell.load(real_competition, [split], few_cells=0).frames
    name = f"annotations/LIVECell/livecell_coco_{split}.json"
    peer = COCO(real_competition / "LIVECell_dataset_2021" / name)
    assert (len(frames), sum(len(frame.cells) for frame in frames)) == (images, cells)
    for frame, image in zip(frames, peer.imgs.values(), strict=True):
        assert frame.path.name == image["file_name"]
        for cell, annotation in zip(frame.cells, peer.imgToAnns[image["id"]][:40], strict=False):
            assert np.array_equal(rle.to_mask(cell.mask), peer.annToMask(annotation))


# ------------------------------------------------------------------------- the published files' faults


def square(x, y, size=4):
    return [[x, y, x + size, y, x + size, y + size, x, y + size]]


@pytest.fixture
def livecell_folder(tmp_path, write_image):
    """``make(train=[(file name, [squares' corners]), ...], val=...)``: LIVECell of those images and cells."""

    def make(**splits):
        root = tmp_path / "LIVECell_dataset_2021"
        for split, entries in splits.items():
            images, annotations = [], []
            for number, (name, corners) in enumerate(entries, 1):
                write_image(root / "images" / "livecell_train_val_images" / name, 40, 60)
                images.append({"id": number, "file_name": name, "height": 40, "width": 60})
                annotations += [
                    {
                        "id": 1000 * number + k,
                        "image_id": number,
                        "category_id": 1,
                        "segmentation": square(*c),
                    }
                    for k, c in enumerate(corners)
                ]
            document = {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "cell"}],
            }
            path = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))
        return root

    return make


def name(hour, well="A10", part=1, line="Huh7"):
    return f"{line}_Phase_{well}_1_{hour // 24:02d}d{hour % 24:02d}h00m_{part}.tif"


CORNERS = [(x, y) for y in range(1, 36, 6) for x in range(1, 54, 6)]  # 54 squares that do not touch


def cells_of(loaded):
    return {frame.path.name: len(frame.cells) for frame in loaded.frames}


def test_of_two_annotations_of_an_image_the_fuller_is_kept(livecell_folder):
    entries = [(name(0), CORNERS[:3]), (name(4), CORNERS[:9]), (name(0), CORNERS[:8]), (name(4), CORNERS[:2])]
    loaded = livecell.load(livecell_folder(train=entries))
    assert cells_of(loaded) == {name(0): 8, name(4): 9}
    assert [(f.file, f.fault) for f in loaded.findings] == [(n, "listed twice") for n in (name(0), name(4))]
    assert loaded.summary == "2 images, 17 cells; 2 images listed twice: the fuller annotation kept"


def test_nothing_that_train_holds_is_evaluated_on(livecell_folder):
    root = livecell_folder(
        train=[(name(0), CORNERS[:5]), (name(4), CORNERS[:5])],
        val=[(name(4), CORNERS[:9]), (name(8), CORNERS[:6])],
    )
    assert cells_of(livecell.load(root, ["val"])) == {name(8): 6}
    both = livecell.load(root, ["val", "train"])
    assert cells_of(both) == {name(0): 5, name(4): 9, name(8): 6}  # trained on together: the fuller one
    assert [f.fault for f in both.findings] == ["also in an earlier split"]


def test_a_val_split_needs_no_train_split(livecell_folder):
    assert cells_of(livecell.load(livecell_folder(val=[(name(0), CORNERS[:5])]), ["val"])) == {name(0): 5}


def test_hardly_annotated_images_are_left_out_and_sparse_cultures_kept(livecell_folder):
    dense = [(name(4 * k), CORNERS[: 40 + k]) for k in range(6)]
    sparse = [
        (name(4 * k, "B2", line="A172"), CORNERS[:2]) for k in range(6)
    ]  # all wells of it are like this
    loaded = livecell.load(livecell_folder(train=[*dense, (name(2), CORNERS[:3]), *sparse]))
    assert [f.file for f in loaded.findings if f.fault == "hardly annotated"] == [name(2)]
    assert set(cells_of(loaded)) == {n for n, _ in (*dense, *sparse)}


def test_a_growing_culture_is_compared_with_images_of_its_time(livecell_folder):
    """2 cells on the first day and 54 on the fifth: none is hardly annotated."""
    counts = [2, 2, 2, 2, 2, 10, 10, 10, 30, 30, 30, 54, 54, 54, 54, 54]
    entries = [(name(6 * k), CORNERS[:n]) for k, n in enumerate(counts)]
    loaded = livecell.load(livecell_folder(train=entries), few_cells=0.3)
    assert loaded.findings == []


def test_a_well_of_few_images_is_compared_with_its_line(livecell_folder):
    line = [(name(4 * k, "A1"), CORNERS[:40]) for k in range(5)]
    loaded = livecell.load(livecell_folder(train=[*line, (name(0, "H12"), CORNERS[:2])]))
    assert [f.file for f in loaded.findings] == [name(0, "H12")]


@pytest.mark.parametrize(("few_cells", "left"), [(0.0, 7), (0.05, 7), (0.1, 6)])
def test_how_few_are_too_few_is_the_users_to_say(livecell_folder, few_cells, left):
    entries = [(name(4 * k), CORNERS[:40]) for k in range(6)] + [(name(30), CORNERS[:3])]  # 3 of 40: 7.5 %
    assert len(livecell.load(livecell_folder(train=entries), few_cells=few_cells).frames) == left


def test_images_whose_cells_are_outlined_twice_are_left_out(livecell_folder):
    moved = [(x + 0.3, y) for x, y in CORNERS[:6]]
    twice = [*CORNERS[:10], *moved]  # 12 of 16 cells have a twin
    few = [*CORNERS[:10], *moved[:2]]  # 4 of 12
    loaded = livecell.load(livecell_folder(train=[(name(0), twice), (name(4), few), (name(8), CORNERS[:10])]))
    assert [(f.file, f.fault) for f in loaded.findings] == [(name(0), "with cells outlined twice")]
    assert set(cells_of(loaded)) == {name(4), name(8)}


def test_an_image_without_any_cell_beside_empty_ones_is_kept(livecell_folder):
    assert len(livecell.load(livecell_folder(train=[(name(4 * k), []) for k in range(5)])).frames) == 5


def test_what_was_read_once_is_read_from_the_cache(livecell_folder, tmp_path, monkeypatch):
    entries = [(name(0), CORNERS[:3]), (name(0), CORNERS[:8]), (name(4), [*CORNERS[:3], *CORNERS[:3]])]
    root, cache = livecell_folder(train=entries), tmp_path / "cache"
    first = livecell.load(root, cache=cache)
    monkeypatch.setattr(livecell.coco, "CocoFile", None)  # what would read it again
    assert livecell.load(root, cache=cache) == first
    assert first.findings
    assert first == livecell.LiveCell(first.frames, first.findings)


@pytest.mark.parametrize("change", ["annotations", "image", "half a cache"])
def test_the_cache_is_made_anew_where_it_does_not_fit(livecell_folder, tmp_path, change):
    cache = tmp_path / "cache"
    root = livecell_folder(train=[(name(0), CORNERS[:3])])
    livecell.load(root, cache=cache)
    if change == "annotations":
        livecell_folder(train=[(name(0), CORNERS[:7])])
    elif change == "image":
        (root / "images" / "livecell_train_val_images" / "new.tif").write_bytes(b"x")
    else:
        next(cache.glob("*.npz")).unlink()
    expected = {name(0): 7 if change == "annotations" else 3}
    assert cells_of(livecell.load(root, cache=cache)) == expected
    assert len(list(cache.iterdir())) == 2  # the old ones are gone


def test_many_annotations_are_read_by_many_processes(livecell_folder, monkeypatch):
    """The same frames, in the same order, and the error of a process as it is."""
    root = livecell_folder(train=[(name(4 * k), CORNERS[: k + 1]) for k in range(30)])
    alone = livecell.load(root, few_cells=0)
    monkeypatch.setattr(coco_files, "PARALLEL_FROM", 10)
    monkeypatch.setattr(coco_files, "CHUNK", 50)
    assert livecell.load(root, few_cells=0) == alone
    path = root / "annotations" / "LIVECell" / "livecell_coco_train.json"
    path.write_text(path.read_text().replace('"segmentation": [[', '"segmentation": [[1, ', 1))
    with pytest.raises(KitError, match=r"annotation 1000 cannot be read .* an odd count of numbers"):
        livecell.load(root)


def test_text_and_numbers_as_ids_are_the_same_ids(folder, document):
    for annotation in document["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    assert len(livecell.load(folder(document)).frames[0].cells) == 3


def test_the_faults_of_a_folder_like_the_published_one_are_all_found(full_size_folder):
    loaded = livecell.load(full_size_folder, ["train", "val", "test"])
    found = Counter(finding.fault for finding in loaded.findings)
    twice = {"listed twice": 2, "also in an earlier split": 1}  # one image of train, one of test
    assert found == {**twice, "hardly annotated": 1, "with cells outlined twice": 1}
    listed = [len(coco_files.file_names(p)) for p in full_size_folder.rglob("livecell_coco_*.json")]
    assert len(loaded.frames) == sum(listed) - 3
    assert len({frame.id for frame in loaded.frames}) == len(loaded.frames)
