"""Cells of one's own: label images of every kind, COCO there and back, and 487 real images."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools.coco import COCO

from kitlib.data import coco, own
from kitlib.data.images import read_image
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame

LABELS = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 9, 9], [3, 0, 0, 9, 9]])  # three cells, numbers with gaps


@pytest.fixture
def pair(tmp_path, write_image):
    """``pair(labels, ".tif")``: folders with one image "a.png" and its label image."""

    def make(labels, suffix=".png", name="a"):
        write_image(tmp_path / "images" / "a.png", *labels.shape[:2])
        path = tmp_path / "labels" / (name + suffix)
        path.parent.mkdir(exist_ok=True)
        if suffix == ".png":
            Image.fromarray(labels).save(path)
        else:
            tifffile.imwrite(path, labels, photometric="rgb" if labels.shape[2:] == (3,) else "minisblack")
        return tmp_path / "images", tmp_path / "labels"

    return make


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [
        (np.uint8, ".png"),
        (np.uint16, ".png"),
        (np.uint8, ".tif"),
        (np.uint16, ".tif"),
        (np.uint16, ".tiff"),
        (np.int16, ".tif"),
        (np.uint32, ".tif"),
        (np.int32, ".tif"),
        (np.float32, ".tif"),
        (">u2", ".tif"),
    ],
)
def test_label_images_of_all_depths(pair, dtype, suffix):
    (frame,) = own.from_labels(*pair(LABELS.astype(dtype), suffix), category="nucleus")
    assert (frame.id, frame.path.name, frame.height, frame.width) == ("a", "a.png", 3, 5)
    assert (frame.category, {cell.category for cell in frame.cells}) == ("nucleus", {"nucleus"})
    masks = [rle.to_mask(cell.mask) for cell in frame.cells]
    assert all(np.array_equal(mask, number == LABELS) for mask, number in zip(masks, (1, 3, 9), strict=True))


def test_more_cells_than_16_bits_count(pair):
    labels = np.array([[1, 65535], [65536, 65537]], np.uint32)
    assert len(own.from_labels(*pair(labels, ".tif"))[0].cells) == 4


def test_palette_indices_are_labels(pair, tmp_path):
    folders = pair(LABELS.astype(np.uint8))
    coloured = Image.fromarray(LABELS.astype(np.uint8))
    coloured.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    coloured.save(folders[1] / "a.png")
    assert len(own.from_labels(*folders)[0].cells) == 3


def test_an_image_without_cells_is_a_frame(pair):
    (frame,) = own.from_labels(*pair(np.zeros((3, 5), np.uint8)))
    assert (frame.cells, frame.category) == ((), "cell")


def test_one_cell_of_255_is_a_cell(pair):
    labels = np.where(LABELS == 9, 255, 0).astype(np.uint8)
    assert len(own.from_labels(*pair(labels))[0].cells) == 1


def test_files_that_are_no_images_are_passed_over(pair):
    folders = pair(LABELS.astype(np.uint8))
    for name in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (folders[0] / name).write_text("not an image")
    assert len(own.from_labels(*folders)) == 1


@pytest.mark.parametrize(
    ("labels", "suffix", "problem"),
    [
        (np.zeros((3, 5, 3), np.uint8), ".png", "is a colour image; save numbers of cells"),
        (np.zeros((3, 5, 3), np.uint8), ".tif", "is a colour image"),
        (np.full((3, 5), 0.5, np.float32), ".tif", "holds fractions"),
        (np.full((3, 5), np.nan, np.float32), ".tif", "holds fractions"),
        (np.full((3, 5), -1, np.int32), ".tif", "holds negative numbers"),
        (np.eye(5, dtype=bool)[::2], ".png", "so the cells cannot be distinguished; number them first"),
        (np.eye(5, dtype=np.uint8)[::2] * 255, ".png", "so the cells cannot be distinguished"),
        (np.zeros((4, 3, 5), np.uint8), ".tif", "has 4 pages"),
        (np.zeros((3, 5), np.float64), ".tif", "is truncated or not a label image"),
    ],
)
def test_images_that_hold_no_labels_are_refused(pair, labels, suffix, problem):
    images, folder = pair(np.zeros((3, 5), np.uint8))
    (folder / "a.png").unlink()
    pair(labels, suffix)
    with pytest.raises(KitError, match=problem) as error:
        own.from_labels(images, folder)
    assert str(folder / f"a{suffix}") in str(error.value)


def test_pairs_are_made_by_name(pair, write_image):
    images, labels = pair(LABELS.astype(np.uint8))
    write_image(images / "b.tif", 3, 5)
    with pytest.raises(KitError, match=r"1 images in .*images have no label image of the same name.*: b;"):
        own.from_labels(images, labels)
    (images / "b.tif").unlink()
    pair(LABELS.astype(np.uint8), ".tif", name="c")
    with pytest.raises(KitError, match=r"1 label images in .*labels have no image of the same name.*: c;"):
        own.from_labels(images, labels)


def test_two_files_of_one_name_are_refused(pair, write_image):
    images, labels = pair(LABELS.astype(np.uint8))
    write_image(images / "a.tif", 3, 5)
    with pytest.raises(KitError, match=r"images holds both a\.png and a\.tif; leave one"):
        own.from_labels(images, labels)


def test_an_image_of_another_size_is_refused(pair, write_image):
    images, labels = pair(LABELS.astype(np.uint8))
    write_image(images / "a.png", 4, 5)
    with pytest.raises(
        KitError, match=r"labels/a\.png says width 5, height 3, but .*a\.png is 5 wide, 4 high"
    ):
        own.from_labels(images, labels)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_raw_images_may_be_colour_or_deep(pair, tmp_path, depth, channels):
    images, labels = pair(LABELS.astype(np.uint8))
    (images / "a.png").unlink()
    shape = (3, 5, 3)[: 2 + (channels > 1)]
    ramp = np.linspace(0, np.iinfo(depth).max, 15 * channels).reshape(shape).astype(depth)
    cv2.imwrite(str(images / "a.tif"), ramp)
    (frame,) = own.from_labels(images, labels)
    pixels = read_image(frame.path, frame.height, frame.width)
    assert (pixels.shape, pixels.dtype) == ((3, 5), np.uint8)
    assert pixels[0, 0] < pixels[2, 4]


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


def test_487_real_images_of_nuclei(real_data, tmp_path):
    folder = real_data / "dsb2018-fluo" / "train"
    frames = own.from_labels(folder / "images", folder / "labels", "nucleus")
    assert (len(frames), sum(len(frame.cells) for frame in frames)) == (487, 20562)
    for frame in frames[::97]:
        labels = cv2.imread(str(folder / "labels" / f"{frame.id}.png"), cv2.IMREAD_UNCHANGED)
        numbers = [n for n in np.unique(labels) if n]
        assert len(numbers) == len(frame.cells)
        for number, cell in zip(numbers, frame.cells, strict=True):
            assert np.array_equal(rle.to_mask(cell.mask), labels == number)
    path = coco.write(tmp_path / "nuclei.json", frames[::97])
    assert coco.read(path, folder / "images") == frames[::97]
