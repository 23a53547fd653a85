"""All formats of an image, and the files of all images."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from kitlib import export
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Frame


@pytest.fixture
def written(crowded, tmp_path):
    """What was written of three frames, the last without cells; and the frames."""
    frames = [crowded(20), crowded(30, seed=1), crowded(3)]
    named = [Frame(f"image {n}", None, 120, 150, f.cells if n < 2 else ()) for n, f in enumerate(frames)]
    image = np.random.default_rng(0).integers(0, 256, (120, 150)).astype(np.uint8)
    return [export.write(export.Result(frame, image, pixel_size=0.5), tmp_path) for frame in named], named


def test_every_format_has_a_file_and_no_other_file_is_left(written, tmp_path):
    paths = written[0][0]
    assert list(paths) == list(export.FORMATS) == ["labels", "outlines", "rois", "coco", "geojson", "table"]
    names = {path.relative_to(tmp_path).as_posix() for path in paths.values()}
    assert names == {
        "labels/image 0.png", "outlines/image 0.png", "rois/image 0.zip", "coco/image 0.json",
        "geojson/image 0.geojson", "table/image 0.json",
    }  # fmt: skip
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 18


def test_the_table_of_all_images(written, tmp_path):
    assert export.join(tmp_path, written[0]) == ["coco", "table"]
    cells, images = pd.read_csv(tmp_path / "cells.csv"), pd.read_csv(tmp_path / "images.csv")
    assert cells.groupby("image").size().to_dict() == {"image 0": 20, "image 1": 30}
    assert images["cells"].tolist() == [20, 30, 0]
    assert images["flags"].fillna("").tolist() == ["", "", "no cells"]
    assert images["cells_cort"].tolist() == [13, 20, 0]
    assert np.allclose(cells["area_um2"], cells["area"] / 4)


def test_the_coco_file_of_all_images(written, tmp_path):
    export.join(tmp_path, written[0])
    found, frames = COCO(tmp_path / "annotations.json"), written[1]
    assert len(found.getAnnIds()) == 50
    names = {number: category["name"] for number, category in found.cats.items()}
    for image_id, frame in enumerate(frames, 1):
        annotations = found.loadAnns(found.getAnnIds(imgIds=[image_id]))
        assert found.imgs[image_id]["file_name"] == f"{frame.id}.png"
        assert [names[a["category_id"]] for a in annotations] == [c.category for c in frame.cells]
        for annotation, cell in zip(annotations, frame.cells, strict=True):
            assert (coco_mask.decode(annotation["segmentation"]) == rle.to_mask(cell.mask)).all()
            assert annotation["score"] == cell.score


def test_without_any_cell_the_tables_have_their_heads(crowded, tmp_path):
    frame = Frame("none", None, 4, 5)
    paths = export.write(export.Result(frame, np.zeros((4, 5), np.uint8)), tmp_path, ["table", "coco"])
    export.join(tmp_path, [paths])
    assert pd.read_csv(tmp_path / "cells.csv").columns.tolist()[:4] == ["image", "cell", "class", "score"]
    assert pd.read_csv(tmp_path / "images.csv")["flags"].tolist() == ["no cells; blank image"]
    assert json.loads((tmp_path / "annotations.json").read_text())["annotations"] == []


def test_only_what_is_asked_for_is_written_each_once(crowded, tmp_path):
    frame = crowded(4)
    paths = export.write(export.Result(frame, np.zeros((120, 150))), tmp_path, ["labels", "labels"])
    assert [path.relative_to(tmp_path).as_posix() for path in paths.values()] == ["labels/well_A1.t03.png"]
    assert export.join(tmp_path, [paths]) == []


@pytest.mark.parametrize(
    ("name", "shape", "formats", "message"),
    [
        ("a", (120, 151), None, "the image of a is 151 x 120 pixels, its frame 150 x 120"),
        ("../a", (120, 150), None, "leads out of the folder"),
        ("a", (120, 150), ["lables"], "unknown format 'lables': did you mean 'labels'"),
    ],
)
def test_what_cannot_be_written_is_said(crowded, tmp_path, name, shape, formats, message):
    frame = Frame(name, None, 120, 150, crowded(2).cells)
    with pytest.raises(KitError, match=message):
        export.write(export.Result(frame, np.zeros(shape)), tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()
