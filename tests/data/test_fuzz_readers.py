"""Damaged files of every format: each is read or refused with a KitError, and nothing hangs.

``KIT_FUZZ`` says how many damaged files of each format; a few hundred by default.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz import damaged
from fuzz_formats import CHOICE, FORMATS, prepare, read_coco
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kitlib.data import coco
from kitlib.data.dataset import Dataset, open_folder
from kitlib.errors import KitError

FILES = int(os.environ.get("KIT_FUZZ", "100"))
# Numbers of files that a reader once failed on: pixels of size 0, a million rows made up by Pillow, LZW
# streams on which imagecodecs crashes, a polygon that leads so far away that drawing it takes all memory,
# names of columns, ids and scores of thousands of digits, versions that zipfile does not know.
FOUND = {
    **{"ome-tiff": (9747,), "tiff": (1931,), "compressed tiff": (2321, 8737), "coco": (315,)},
    **{"train.csv": (447, 1129), "predictions": (365, 1637), "corrections": (447, 3169)},
    **{"frames": (133, 2553)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path, name):
    path = prepare(name, tmp_path)
    tried = {number: fuzz.try_file(name, path, number) for number in (*range(FILES), *FOUND.get(name, ()))}
    assert {number: outcome for number, outcome in tried.items() if outcome.kind} == {}
    assert any(outcome.refused for outcome in tried.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ID = st.integers(-2, 3) | st.sampled_from(["1", "01", "x", 1.0, None, 1e300])
SIDE = st.sampled_from([16, 24, 16.0, 0, -1, 1e300, 1 << 40, 0.5, None])
NAME = st.sampled_from(
    ["image.png", "../image.png", "a\\image.png", "/x.png", "", ".", "\0", "image"]
) | st.text(max_size=9)
SEGMENTATION = st.one_of(
    st.lists(st.lists(st.floats() | st.integers(-50, 50), max_size=8), max_size=2),
    st.fixed_dictionaries(
        {"size": st.lists(SIDE, max_size=3), "counts": st.lists(st.integers(), max_size=5)}
    ),
    st.fixed_dictionaries({"size": st.just([16, 24]), "counts": st.text(max_size=8)}),
    JSON,
)
IMAGE = st.fixed_dictionaries({"id": ID, "file_name": NAME, "height": SIDE, "width": SIDE}) | JSON
ANNOTATION = st.fixed_dictionaries(
    {
        "id": ID,
        "image_id": ID,
        "category_id": ID,
        "segmentation": SEGMENTATION,
        "iscrowd": st.sampled_from([0, 1, None, "x"]),
    }
)
GOOD = {"id": 1, "file_name": "image.png", "height": 16, "width": 24}
DOCUMENT = st.fixed_dictionaries(
    {
        "images": st.lists(IMAGE | st.just(GOOD), max_size=3),
        "annotations": st.lists(ANNOTATION, max_size=4) | JSON,
        "categories": st.lists(st.fixed_dictionaries({"id": ID, "name": ID}), max_size=2),
    }
)


@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(document=DOCUMENT)
def test_coco_of_any_content(coco_folder, document):
    path = coco_folder / "a.json"
    path.write_text(json.dumps(document))
    with suppress(KitError):
        read_coco(path)
    with suppress(KitError):
        coco.read(path, path.parent)
    with suppress(KitError):
        coco.read_alone(path)


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(folder / "image.png")
    return folder


# The formats of images and annotations.
IMAGES = list(FORMATS)[: list(FORMATS).index("coco") + 1]
PARTS = ("train", "test", "images", "labels", "masks", "A", "a", "__MACOSX", "a.png")
STEMS = (
    "a",
    "b",
    "a_masks",
    "a_seg",
    "a_label",
    "RoiSet",
    "a__b",
    "A__a",
    ".a",
    "a_cp_masks_masks",
    "_masks",
)


@settings(
    max_examples=max(FILES // 3, 50), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    names=st.lists(
        st.tuples(
            st.lists(st.sampled_from(PARTS), max_size=3),
            st.sampled_from(STEMS),
            st.sampled_from(IMAGES),
        ),
        max_size=8,
    ),
    seed=st.integers(0, 9),
)
def test_folders_of_any_layout(tmp_path_factory, names, seed):
    """Whatever lies where: each image is a frame or has a finding, and each id occurs once."""
    folder = tmp_path_factory.mktemp("folder")
    for folders, stem, kind in names:
        file_name, data, *_ = FORMATS[kind]
        path = folder.joinpath(*folders, stem + file_name.removeprefix("a"))
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if seed else damaged(data, random.Random(stem)))
    try:
        dataset = open_folder(folder, CHOICE)
    except KitError:
        return
    check(dataset, folder)


def check(dataset: Dataset, folder: Path) -> None:
    frames = [*dataset.labelled, *dataset.unlabelled, *dataset.test]
    names = [frame.id for frame in frames]
    assert len(set(names)) == len(names) > 0
    for frame in frames:
        assert frame.path is not None
        assert frame.path.is_relative_to(folder)
        assert "/" not in frame.id
        assert all(cell.mask["size"] == [frame.width, frame.height] for cell in frame.cells)
