"""COCO files there and back, and the faults of those that other programs write."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
from pycocotools.coco import COCO

from kitlib.data import coco
from kitlib.data.config import Findings
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame


@pytest.fixture
def frames(tmp_path, write_image):
    """Two frames with overlapping cells of two types, one scored; a third without any."""
    rng = np.random.default_rng(0)
    cells = [Cell(rle.from_mask(rng.random((7, 11)) < 0.4), kind) for kind in ("cort", "astro", "cort")]
    corner = np.zeros((5, 4), bool)
    corner[4, 3] = True
    return [
        Frame("a", write_image(tmp_path / "images" / "a.png", 7, 11), 7, 11, tuple(cells)),
        Frame(
            "b",
            write_image(tmp_path / "images" / "b.tif", 5, 4),
            5,
            4,
            (Cell(rle.from_mask(corner), "cort"),),
            "cort",
        ),
        Frame("c", write_image(tmp_path / "images" / "c.png", 3, 3), 3, 3),
    ]


def test_coco_there_and_back(tmp_path, frames):
    path = coco.write(tmp_path / "out" / "cells.json", frames)
    assert coco.read(path, tmp_path / "images") == frames


def test_pycocotools_reads_what_is_written(tmp_path, frames):
    peer = COCO(coco.write(tmp_path / "cells.json", frames))
    assert [image["file_name"] for image in peer.imgs.values()] == ["a.png", "b.tif", "c.png"]
    for image, frame in zip(peer.imgs.values(), frames, strict=True):
        for annotation, cell in zip(peer.imgToAnns[image["id"]], frame.cells, strict=True):
            mask = rle.to_mask(cell.mask)
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            box = [x, y, columns.max() - x + 1, rows.max() - y + 1]
            assert np.array_equal(peer.annToMask(annotation), mask)
            assert (annotation["bbox"], annotation["area"]) == (box, mask.sum())
            assert peer.cats[annotation["category_id"]]["name"] == cell.category


def test_scores_are_exported(tmp_path, frames):
    scored = Frame("d", None, 3, 3, (Cell(rle.from_mask(np.eye(3, dtype=bool)), "cort", score=0.25),))
    document = json.loads(coco.write(tmp_path / "cells.json", [scored]).read_text())
    assert document["annotations"][0]["score"] == 0.25
    assert document["images"][0]["file_name"] == "d.png"


# ------------------------------------------------------------------------------------------ faults


SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]


@pytest.fixture
def read(tmp_path, write_image):
    """``read(names, **changes)``: the frames and findings of a file that lists images of 6 x 8 pixels."""

    def make(names, files=None, ids=lambda number: number, cells=1, **annotation):
        for name in names if files is None else files:
            write_image(tmp_path / "images" / name)
        images = [{"id": n, "file_name": name, "height": 6, "width": 8} for n, name in enumerate(names)]
        annotations = [
            {"id": 10 * n + k, "image_id": ids(n), "category_id": 1, "segmentation": SQUARE, **annotation}
            for n in range(len(names))
            for k in range(cells)
        ]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "T"}]}
        (tmp_path / "cells.json").write_text(json.dumps(document))
        findings = Findings(tmp_path)
        found = coco.CocoFile(tmp_path / "cells.json", tmp_path / "images", findings)
        return list(found.frames()), findings

    return make


def counts(frames):
    return {frame.path.name: len(frame.cells) for frame in frames}


def test_a_file_in_which_all_are_crowds_marks_masks_so(read):
    frames, findings = read(["a.png", "b.png"], iscrowd=1)
    assert counts(frames) == {"a.png": 1, "b.png": 1}
    assert findings == [("cells.json", "marks 2 of 2 cells as crowds", "read as cells")]


def test_nearly_all_are_crowds(read, tmp_path):
    read([f"{n}.png" for n in range(20)], iscrowd=1)
    path = tmp_path / "cells.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["iscrowd"] = 0
    path.write_text(json.dumps(document))
    assert sum(len(frame.cells) for frame in coco.read(path, tmp_path / "images")) == 20
    for annotation in document["annotations"][:4]:
        annotation["iscrowd"] = 0
    path.write_text(json.dumps(document))
    # 16 of 20 are crowds in earnest.
    assert sum(len(frame.cells) for frame in coco.read(path, tmp_path / "images")) == 4


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        (r"plate\a.png", "plate/a.png"),
        (r".\plate\a.png", "plate/a.png"),
        ("./plate/a.png", "plate/a.png"),
        ("data/images/plate/a.png", "plate/a.png"),
        (
            unicodedata.normalize("NFD", "plate/Zelle_ä.png"),
            unicodedata.normalize("NFC", "plate/Zelle_ä.png"),
        ),
        (
            unicodedata.normalize("NFC", "plate/Zelle_ä.png"),
            unicodedata.normalize("NFD", "plate/Zelle_ä.png"),
        ),
        (unicodedata.normalize("NFC", "Zelle_ä.png"), unicodedata.normalize("NFD", "plate/Zelle_ä.png")),
    ],
)
def test_file_names_of_other_systems(read, listed, stored):
    frames, findings = read([listed], [stored])
    assert (counts(frames), findings) == ({stored.rpartition("/")[2]: 1}, [])


@pytest.mark.parametrize(
    "listed", ["../x.png", "/tmp/x.png", r"C:\x.png", "a/../../x.png", r"..\x.png", "//host/x.png"]
)
def test_file_names_that_lead_out_of_the_folder(read, tmp_path, write_image, listed):
    write_image(tmp_path / "x.png")
    write_image(tmp_path / "images" / "x.png")
    frames, (finding,) = read([listed, "good.png"], ["good.png"])
    assert counts(frames) == {"good.png": 1}
    assert finding.fault == f"lists the image {listed!r}, which leads out of the folder of images"
    with pytest.raises(KitError, match=r"cells\.json lists the image .* correct its file_name"):
        coco.read(tmp_path / "cells.json", tmp_path / "images")


def test_one_name_in_two_folders(read):
    frames, findings = read(["A/x.png", "B/x.png"])
    assert [frame.path.parent.name for frame in frames] == ["A", "B"]
    assert findings == []


def test_a_bare_name_that_two_folders_have(read):
    frames, (finding,) = read(["x.png", "y.png"], ["A/x.png", "B/x.png", "y.png"])
    assert counts(frames) == {"y.png": 1}
    assert finding.fault == "lists the image 'x.png', which is in several folders: A, B"


@pytest.mark.parametrize("ids", [str, lambda n: f"{n:04}", float, int], ids=["text", "zeros", "float", "int"])
def test_ids_that_are_text_in_one_list_and_numbers_in_the_other(read, ids):
    frames, findings = read(["a.png", "b.png"], ids=ids)
    assert (counts(frames), findings) == ({"a.png": 1, "b.png": 1}, [])


def test_faults_are_collected(read, tmp_path):
    read(["a.png", "b.png", "missing.png", "c.png"])
    path = tmp_path / "cells.json"
    (tmp_path / "images" / "missing.png").unlink()
    document = json.loads(path.read_text())
    document["annotations"] += [
        {"id": 90, "image_id": 77, "category_id": 1, "segmentation": SQUARE},
        {"id": 91, "image_id": 0, "category_id": 5, "segmentation": SQUARE},
        {"id": 92, "image_id": 0, "category_id": 1, "segmentation": [[1, 2, 3]]},
        {"id": 93, "image_id": 0, "category_id": 1, "segmentation": [[0, 0, 0, 0, 0, 0]]},
        {"id": 94, "image_id": 1, "category_id": 1, "segmentation": SQUARE},
    ]
    document["images"][3]["height"] = 0
    document["images"].append({**document["images"][1], "id": 50})
    path.write_text(json.dumps(document))
    findings = Findings(tmp_path)
    frames = list(coco.CocoFile(path, tmp_path / "images", findings).frames())
    assert counts(frames) == {"a.png": 1, "b.png": 2}
    faults = "\n".join(f"{file} {fault}: {action}" for file, fault, action in findings)
    for part in (
        "cells.json lists the image 'missing.png', which is not under",
        "cells.json image 3 has width 8 and height 0; write the image's size in pixels: left out",
        "cells.json has 1 annotations whose image_id it does not list: 77: left out",
        "cells.json has 1 annotations whose category_id it does not list: 5: left out",
        "images/a.png annotation 92 cannot be read as a mask: a polygon has an odd count of numbers",
        "cells.json has 1 annotations that cover no pixel: left out",
        "images/b.png is listed more than once: the fuller annotation taken",
    ):
        assert part in faults
    assert len(findings) == 7


def test_without_an_image_there_is_no_frame(read, tmp_path):
    read(["a.png"])
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(KitError, match=r"images, the images of .*cells\.json, is not a folder"):
        coco.CocoFile(tmp_path / "cells.json", tmp_path / "images", Findings(tmp_path))
