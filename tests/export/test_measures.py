"""Measurements: those of scikit-image on the label image, and by hand."""

import numpy as np
import pandas as pd
import pytest
from skimage.measure import regionprops_table

from kitlib.export import measures
from kitlib.masks import rle
from kitlib.records import Cell, Frame

NAMES = {
    "label": "cell",
    "centroid-1": "centroid_x",
    "centroid-0": "centroid_y",
    "area": "area",
    "perimeter": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "intensity_mean-0": "mean_intensity_1",
    "intensity_mean-1": "mean_intensity_2",
}


def test_rows_are_those_of_scikit_image(crowded):
    frame = crowded(40)
    image = np.random.default_rng(1).integers(0, 60_000, (120, 150, 2)).astype(np.uint16)
    properties = ("label", "centroid", "area", "perimeter", "eccentricity", "solidity", "intensity_mean")
    theirs = pd.DataFrame(regionprops_table(frame.to_labels(), image, properties)).rename(columns=NAMES)
    ours = pd.DataFrame(measures.cell_rows(frame, image))
    assert np.allclose(ours[list(NAMES.values())], theirs[list(NAMES.values())])
    assert np.allclose(ours["integrated_intensity_2"], theirs["mean_intensity_2"] * theirs["area"])
    assert ours["score"].tolist() == [cell.score for cell in frame.cells]
    assert ours["class"].tolist() == [cell.category for cell in frame.cells]
    assert (ours["image"] == frame.id).all()
    assert not any(name.endswith("um") for name in ours.columns)


def test_micrometres_by_hand():
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:9] = True
    frame = Frame("a", None, 10, 12, (Cell(rle.from_mask(mask), "cort"),))
    (row,) = measures.cell_rows(frame, np.full((10, 12), 7, np.uint8), pixel_size=0.5)
    assert (row["centroid_x"], row["centroid_y"], row["area"]) == (5.5, 3.5, 24)
    assert (row["centroid_x_um"], row["centroid_y_um"], row["area_um2"]) == (2.75, 1.75, 6.0)
    assert row["perimeter_um"] == row["perimeter"] / 2
    assert (row["mean_intensity"], row["integrated_intensity"]) == (7, 168)
    assert (row["solidity"], row["score"]) == (1, None)


def test_overlapping_cells_are_measured_whole(overlapping):
    areas = [row["area"] for row in measures.cell_rows(overlapping, np.zeros((30, 40)))]
    assert areas == [100, 100, 9]
    assert measures.image_row(overlapping, np.zeros((30, 40), np.uint8))["covered"] == 175 / 1200


@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_cell_of_one_row_is_measured(width):
    mask = np.zeros((4, 9), bool)
    mask[1, :width] = True
    frame = Frame("a", None, 4, 9, (Cell(rle.from_mask(mask), "cort"),))
    (row,) = measures.cell_rows(frame, np.ones((4, 9)))
    assert (row["area"], row["solidity"]) == (width, 1)


def test_an_empty_mask_has_no_row_and_the_others_keep_their_numbers():
    masks = [np.zeros((4, 4), bool), np.ones((4, 4), bool)]
    frame = Frame("a", None, 4, 4, tuple(Cell(rle.from_mask(m), "cort") for m in masks))
    assert [row["cell"] for row in measures.cell_rows(frame, np.ones((4, 4)))] == [2]


def test_density_by_hand(crowded):
    frame = crowded(30, height=100, width=200)
    row = measures.image_row(frame, np.zeros((100, 200), np.uint8), pixel_size=2.0)
    assert (row["cells"], row["cells_astro"], row["cells_cort"]) == (30, 10, 20)
    assert row["cells_per_megapixel"] == pytest.approx(1500)
    # 0.2 mm x 0.4 mm
    assert row["cells_per_mm2"] == pytest.approx(375)
    assert row["covered"] == 1


def test_flags_name_what_to_look_at():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (40, 40)).astype(np.uint8)
    blurred = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)
    cell = Cell(rle.from_mask(np.eye(40, dtype=bool)), "per_mm2")
    rows = [measures.image_row(Frame(str(n), None, 40, 40, (cell,)), sharp) for n in range(4)]
    rows.append(measures.image_row(Frame("4", None, 40, 40, ()), blurred))
    rows.append(measures.image_row(Frame("5", None, 40, 40, (cell,) * 1000), np.zeros((40, 40), np.uint8)))
    table = measures.images_table(rows)
    assert table["flags"].tolist()[:4] == [""] * 4
    assert table["flags"][4] == "no cells; less sharp than the others"
    assert table["flags"][5] == "very many cells; blank image"
    assert "less sharp" not in measures.images_table(rows[2:5])["flags"][4 - 2]


def test_classes_that_only_some_images_have_are_0_in_the_others():
    cells = {name: Cell(rle.from_mask(np.ones((2, 2), bool)), name) for name in "ab"}
    rows = [
        measures.image_row(Frame(name, None, 2, 2, (cells[name],)), np.zeros((2, 2), np.uint8))
        for name in "ab"
    ]
    table = measures.images_table(rows)
    assert table[["cells_a", "cells_b"]].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert list(table.columns[:7]) == [
        "image", "height", "width", "pixel_size_um", "cells", "cells_a", "cells_b"
    ]  # fmt: skip
