"""Label images of every type, their faults, and masks of one cell a file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib.data import labels as label_images
from kitlib.data.config import Findings, ReadingConfig
from kitlib.errors import KitError
from kitlib.masks import rle

LABELS = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 9, 9], [3, 0, 0, 9, 9]])  # three cells, numbers with gaps


@pytest.fixture
def save(tmp_path):
    """``save(labels, ".tif")``: a label image."""

    def make(labels, suffix=".png", **options):
        path = tmp_path / f"a{suffix}"
        if suffix in (".tif", ".tiff"):
            colour = labels.shape[2:] == (3,)
            tifffile.imwrite(path, labels, photometric="rgb" if colour else "minisblack", **options)
        else:
            Image.fromarray(labels).save(path, **options)
        return path

    return make


@pytest.fixture
def findings(tmp_path):
    return Findings(tmp_path)


def masks_of(labels, findings, relabel=False):
    found = label_images.cells(np.asarray(labels), findings.folder / "a.png", relabel, findings)
    return [rle.to_mask(mask).astype(int).tolist() for mask in found]


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
        (np.int64, ".tif"),
        (np.uint64, ".tif"),
        (np.float32, ".tif"),
        (np.float64, ".tif"),
        (">u2", ".tif"),
    ],
)
def test_label_images_of_all_depths(save, dtype, suffix):
    read = label_images.read_labels(save(LABELS.astype(dtype), suffix))
    assert read.dtype.kind in "iu"
    assert np.array_equal(read, LABELS)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma", "deflate"])
def test_compressed_label_images(save, compression):
    path = save(LABELS.astype(np.uint16), ".tif", compression=compression)
    assert np.array_equal(label_images.read_labels(path), LABELS)


def test_more_cells_than_16_bits_count(save, findings):
    labels = label_images.read_labels(save(np.array([[1, 65535], [65536, 65537]], np.uint32), ".tif"))
    assert len(label_images.cells(labels, findings.folder, False, findings)) == 4


def test_palette_indices_are_labels(save, tmp_path):
    coloured = Image.fromarray(LABELS.astype(np.uint8))
    coloured.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    coloured.save(tmp_path / "a.png")
    assert np.array_equal(label_images.read_labels(tmp_path / "a.png"), LABELS)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_numbers_saved_as_grey_colours(save, suffix):
    path = save(np.dstack([LABELS] * 3).astype(np.uint8), suffix)
    assert np.array_equal(label_images.read_labels(path), LABELS)


@pytest.mark.parametrize(
    ("labels", "suffix", "problem"),
    [
        (np.eye(15, dtype=np.uint8).reshape(15, 5, 3), ".png", "is a colour image; save numbers of cells"),
        (np.eye(15, dtype=np.uint8).reshape(15, 5, 3), ".tif", "is a colour image"),
        (np.full((3, 5), 0.5, np.float32), ".tif", "holds fractions"),
        (np.full((3, 5), np.nan, np.float32), ".tif", "holds fractions"),
        (np.full((3, 5), np.inf, np.float64), ".tif", "holds fractions"),
        (np.full((3, 5), 1e300, np.float64), ".tif", "holds numbers above"),
        (np.full((3, 5), -1, np.int32), ".tif", "holds negative numbers"),
        (np.zeros((4, 3, 5), np.uint8), ".tif", r"has 4 pages; choose one with plane \(0 to 3\)"),
        (np.zeros((3, 5), np.complex64), ".tif", "numbers of type complex64"),
    ],
)
def test_images_that_hold_no_labels_are_refused(save, labels, suffix, problem):
    path = save(labels, suffix)
    with pytest.raises(KitError, match=problem) as error:
        label_images.read_labels(path)
    assert str(path) in str(error.value)


def test_the_chosen_page_of_label_images(save):
    path = save(np.stack([LABELS * 0, LABELS]).astype(np.uint8), ".tif")
    assert np.array_equal(label_images.read_labels(path, ReadingConfig(plane=1)), LABELS)


def test_a_truncated_label_image(save):
    path = save(np.random.default_rng(0).integers(0, 9, (99, 99)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(KitError, match=r"a\.png is truncated or not a label image .* save it as"):
        label_images.read_labels(path)


@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", {}), (".webp", {}), (".tif", {"compression": "jpeg"})], ids=str
)
def test_lossy_label_images_are_refused(save, suffix, options):
    path = save((LABELS > 0).astype(np.uint8).repeat(16, 0).repeat(16, 1) * 80, suffix, **options)
    with pytest.raises(KitError, match=r"is compressed lossily .* save label images as PNG"):
        label_images.read_labels(path)


# ------------------------------------------------------------------------------------------ numbers and parts

TWO_SPOTS = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("number", [1, 7, 255, 65535])
def test_one_number_in_several_parts_is_a_mask_of_all_cells(findings, number):
    with pytest.raises(
        KitError, match=rf"only number, {number}, lies in 2 parts; .* relabel=true to make each part a cell"
    ):
        masks_of(TWO_SPOTS * number, findings)


def test_a_mask_of_two_colours_is_one_too(save, findings):
    labels = label_images.read_labels(save(TWO_SPOTS == 1))
    with pytest.raises(KitError, match="a mask of all cells together"):
        masks_of(labels, findings)


def test_one_number_in_one_part_is_a_cell(findings):
    # Pixels that touch at a corner are one part.
    assert masks_of([[255, 0], [0, 255]], findings) == [[[1, 0], [0, 1]]]
    assert findings == []


def test_relabel_makes_each_part_a_cell(findings):
    first, second = masks_of(TWO_SPOTS, findings, relabel=True)
    assert np.argwhere(first).tolist() == [[0, 0]]
    assert np.argwhere(second).tolist() == [[2, 3]]
    # Two numbers that touch stay two cells.
    assert masks_of([[1, 2], [1, 2]], findings, relabel=True) == [[[1, 0], [1, 0]], [[0, 1], [0, 1]]]


def test_a_number_in_far_apart_parts_is_reported(findings):
    labels = np.zeros((20, 40), int)
    labels[0:4, 0:4] = labels[0:4, 20:24] = 5
    # Parts with a gap of two pixels, as a scratch makes: nothing to say.
    labels[10:14, 0:4] = labels[10:14, 6:10] = 6
    labels[10:14, 30:34] = 7
    assert len(masks_of(labels, findings)) == 3
    assert [tuple(finding) for finding in findings] == [
        (
            "a.png",
            "has the same number on parts that lie far apart: 5",
            "each read as one cell; relabel=true makes each part a cell",
        )
    ]


# ------------------------------------------------------------------------------------------ one file a cell


def test_masks_of_one_cell_a_file(tmp_path, findings):
    paths = []
    for name, mask in {
        "1": [[255, 0, 0]],
        "2": [[0, 0, 1]],
        "empty": [[0, 0, 0]],
        "small": [[1, 1]],
    }.items():
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(np.array(mask, np.uint8)).save(paths[-1])
    masks = label_images.one_a_file(paths, 1, 3, findings)
    assert [rle.to_text(mask) for mask in masks] == ["1 1", "3 1"]
    assert [(finding.file, finding.fault) for finding in findings] == [
        ("empty.png", "shows no cell"),
        ("small.png", "is 2 wide, 1 high; its image is 3 wide, 1 high"),
    ]


def test_labels_of_487_real_images_of_nuclei(real_data, tmp_path):
    folder = real_data / "dsb2018-fluo" / "train" / "labels"
    for path in sorted(folder.iterdir())[::97]:
        expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels = label_images.read_labels(path)
        assert np.array_equal(labels, expected)
        masks = label_images.cells(labels, path, False, Findings(folder))
        numbers = [n for n in np.unique(expected) if n]
        assert all(np.array_equal(rle.to_mask(m), expected == n) for m, n in zip(masks, numbers, strict=True))
