"""Damaged files of every format: each is read or refused with a KitError, and nothing hangs.

``KIT_FUZZ`` says how many damaged files of each format; a few hundred by default.
"""

from __future__ import annotations

import io
import json
import os
import random
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from roifile import ImagejRoi

from kitlib.data import coco, planes
from kitlib.data.cellpose import read_seg
from kitlib.data.config import Findings, ReadingConfig
from kitlib.data.dataset import Dataset, open_folder
from kitlib.data.images import read_image
from kitlib.data.labels import read_labels
from kitlib.data.rois import read_rois
from kitlib.data.tiff import pixel_size
from kitlib.errors import KitError
from kitlib.masks import rle

FILES = int(os.environ.get("KIT_FUZZ", "300"))
LABELS = np.kron(np.arange(6).reshape(2, 3), np.ones((8, 8), int))
# Values of bytes at which a reader's arithmetic turns.
EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
CHOICE = ReadingConfig(channel=0, plane=0)
# Seeds of files that a reader once failed on: pixels of size 0, a million rows made up by Pillow, and LZW
# streams on which imagecodecs crashes.
FOUND = {"ome-tiff": (9747,), "tiff": (1931,), "compressed tiff": (2321, 8737)}


def png(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(LABELS.astype(np.uint16)).save(file, "png", **options)
    return file.getvalue()


def jpeg() -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LABELS.astype(np.uint8)).save(file, "jpeg", exif=exif)
    return file.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def seg() -> bytes:
    file = io.BytesIO()
    content = {"masks": LABELS.astype(np.uint16), "flows": [None, LABELS * 0.5], "filename": "a.png"}
    np.save(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def roi() -> bytes:
    return ImagejRoi.frompoints(np.array([[1, 2], [9, 2], [9.5, 7], [1, 7]]), name="cell").tobytes()


def roi_zip(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a.roi", roi())
        archive.writestr("b.roi", ImagejRoi.frompoints([[1, 2], [9, 2], [9, 7]]).tobytes())
    return file.getvalue()


TEXT = rle.to_coco(rle.from_mask(LABELS == 3))["counts"].decode()


def coco_json() -> bytes:
    square = {"category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    runs = {"category_id": 1, "segmentation": {"size": [16, 24], "counts": [10, 20, 354]}}
    text = {"category_id": "1", "segmentation": {"size": [16, 24], "counts": TEXT}}
    document = {
        "images": [{"id": 1, "file_name": "image.png", "height": 16, "width": 24}],
        "annotations": [{"id": n, "image_id": 1, **a} for n, a in enumerate((square, runs, text))],
        "categories": [{"id": 1, "name": "cell"}],
    }
    return json.dumps(document).encode()


def read_coco(path: Path) -> None:
    findings = Findings(path.parent)
    list(coco.CocoFile(path, path.parent, findings).frames())
    for finding in findings:
        raise KitError(finding.fault)


def read_tiff(path: Path) -> None:
    pixel_size(path)
    for reading in (CHOICE, ReadingConfig(projection="max", channel="grey")):
        with suppress(KitError):
            read_labels(path, reading)
    with suppress(KitError):
        read_image(path)
    planes.size(path, CHOICE)
    planes.read_frame(path, CHOICE)


def read_rois_of(path: Path) -> None:
    findings = Findings(path.parent)
    read_rois(path, 16, 24, 0, findings)
    for finding in findings:
        raise KitError(finding.fault)


STACK = np.stack([LABELS] * 4).reshape(2, 2, *LABELS.shape).astype(np.uint16)
FORMATS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "png": ("a.png", png(), lambda path: (read_labels(path), read_image(path))),
    "jpeg": ("a.jpg", jpeg(), lambda path: planes.read_frame(path, CHOICE)),
    "tiff": ("a.tif", tiff(STACK[0, 0]), read_tiff),
    "tiff of floats": ("a.tif", tiff(LABELS / 2, extratags=[(0x112, "H", 1, 6)]), read_tiff),
    "compressed tiff": ("a.tif", tiff(STACK[0, 0], compression="lzw", predictor=True), read_tiff),
    "hyperstack": ("a.tif", tiff(STACK, imagej=True, metadata={"axes": "ZCYX", "unit": "um"}), read_tiff),
    "ome-tiff": ("a.tif", tiff(STACK, ome=True, metadata={"axes": "CZYX", "PhysicalSizeX": 0.5}), read_tiff),
    "big-endian tiff": ("a.tif", tiff(STACK, byteorder=">", bigtiff=True), read_tiff),
    "cellpose": ("a_seg.npy", seg(), read_seg),
    "roi": ("a.roi", roi(), read_rois_of),
    "zip of rois": ("a.zip", roi_zip(zipfile.ZIP_DEFLATED), read_rois_of),
    "stored rois": ("a.zip", roi_zip(zipfile.ZIP_STORED), read_rois_of),
    "coco": ("a.json", coco_json(), read_coco),
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with some bytes changed, or with a piece cut out, doubled or swapped for zeros."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(found))
        length = rng.choice((1, 2, 4, 8, len(found) // 4 + 1))
        change = rng.randrange(6)
        if change < 2:
            found[start] = rng.choice((*EDGES, rng.randrange(256), found[start] ^ (1 << rng.randrange(8))))
        elif change == 2:
            found[start : start + length] = bytes(rng.choice(EDGES) for _ in range(min(length, 8)))
        elif change == 3:
            found[start : start + length] = b""
        elif change == 4:
            found[start:start] = found[start : start + length]
        else:
            del found[start:]
        if not found:
            break
    return bytes(found)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path, write_image, name):
    file_name, data, read = FORMATS[name]
    write_image(tmp_path / "image.png", 16, 24)
    path = tmp_path / file_name
    path.write_bytes(data)
    read(path)
    refused = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in (*range(FILES), *FOUND.get(name, ())):
            path.write_bytes(damaged(data, random.Random(seed)))
            try:
                read(path)
            except KitError as error:
                refused.append(str(error))
    assert refused
    assert not any("\n" in text for text in refused)


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
            st.sampled_from(list(FORMATS)),
        ),
        max_size=8,
    ),
    seed=st.integers(0, 9),
)
def test_folders_of_any_layout(tmp_path_factory, names, seed):
    """Whatever lies where: each image is a frame or has a finding, and each id occurs once."""
    folder = tmp_path_factory.mktemp("folder")
    for folders, stem, kind in names:
        file_name, data, _ = FORMATS[kind]
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
