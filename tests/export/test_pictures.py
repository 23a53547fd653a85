"""Label images by other readers, and outlines pixel by pixel."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries

from kitlib.data.dataset import open_folder
from kitlib.data.images import read_image
from kitlib.errors import KitError
from kitlib.export import pictures
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def test_cells_are_numbered_in_the_frames_order(crowded):
    frame = crowded(60)
    labels = frame.to_labels()
    assert labels.dtype == np.uint16
    assert rle.from_labels(labels) == [cell.mask for cell in frame.cells]
    assert [r.label for r in regionprops(labels)] == list(range(1, 61))


def test_a_shared_pixel_is_the_best_cells(overlapping):
    labels = overlapping.to_labels()
    first, second, third = (rle.to_mask(cell.mask) for cell in overlapping.cells)
    assert (labels == np.where(second, 2, np.where(first, 1, 0))).all()
    assert not (labels == 3).any()
    assert third.any()


@pytest.mark.parametrize("cells", [0, 1])
def test_no_cell_and_an_empty_mask_are_background(cells, tmp_path):
    empty = Cell(rle.from_mask(np.zeros((4, 5), bool)), "cort")
    frame = Frame("a", None, 4, 5, (empty,) * cells)
    assert frame.to_labels().tolist() == np.zeros((4, 5)).tolist()
    assert not np.asarray(Image.open(pictures.write_labels(frame, tmp_path / "a"))).any()


def test_up_to_65535_cells_are_a_16_bit_png_and_more_a_32_bit_tiff(tmp_path):
    labels = np.arange(1, 65_537).reshape(256, 256)
    cells = tuple(Cell(mask, "cort") for mask in rle.from_labels(labels))
    fewer = np.where(labels <= 65_535, labels, 0)
    png = pictures.write_labels(Frame("a.1", None, 256, 256, cells[:-1]), tmp_path / "a.1")
    assert (np.asarray(Image.open(png)) == fewer).all()
    assert png.name == "a.1.png"
    tiff = pictures.write_labels(Frame("a.1", None, 256, 256, cells), tmp_path / "a.1")
    read = tifffile.imread(tiff)
    assert read.dtype == np.uint32
    assert (read == labels).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.1.tif"]


def test_label_images_come_in_again(crowded, tmp_path):
    frame = crowded(50)
    pictures.write_labels(frame, tmp_path / "labels" / "a")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((120, 150), np.uint8)).save(tmp_path / "images" / "a.png")
    (read,) = open_folder(tmp_path).labelled
    assert [cell.mask for cell in read.cells] == [cell.mask for cell in frame.cells]


def test_outlines_are_the_outermost_pixels_in_their_categorys_colour(crowded, tmp_path):
    frame = crowded(12)
    image = np.random.default_rng(0).integers(0, 4000, (120, 150)).astype(np.uint16)
    drawn = np.asarray(Image.open(pictures.write_outlines(frame, pictures.grey(image), tmp_path / "a")))
    assert drawn.shape == (120, 150, 3)
    colors = pictures.category_colors([frame])
    assert len(set(colors.values())) == 2
    edge = find_boundaries(np.pad(frame.to_labels(), 1), connectivity=1, mode="inner")[1:-1, 1:-1]
    for cell in frame.cells:
        rim = edge & rle.to_mask(cell.mask)
        assert (drawn[rim] == colors[cell.category]).all()
    inside = drawn[~edge]
    assert (inside[:, 0] == inside[:, 1]).all()
    assert inside.max() <= 235


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 3000, (20, 30)).astype(np.uint16),
        np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8),
    ],
)
def test_grey_levels_are_those_of_a_file_that_is_read(pixels, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert (pictures.grey(pixels) == read_image(tmp_path / "a.tif")).all()


def test_pixels_that_are_not_finite_are_no_reason_for_a_black_image():
    pixels = np.linspace(0, 1, 100).reshape(10, 10)
    pixels[0, 0], pixels[9, 9] = np.nan, np.inf
    levels = pictures.grey(pixels)
    assert (levels[0, 0], levels[9, 9]) == (0, 255)
    assert 120 < levels.mean() < 135


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5), (0, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(KitError, match="an image is"):
        pictures.grey(np.zeros(shape))


def test_an_image_without_a_finite_pixel_is_refused():
    with pytest.raises(KitError, match="no finite number"):
        pictures.grey(np.full((3, 3), np.nan))
