"""Figures of images: the numbers and names that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kitlib import viz
from kitlib.analysis.images import Pair, Quality
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def test_quality_is_a_dot_an_image_by_group_and_the_worst_are_named(drawn) -> None:
    values = [Quality(f"image{n}", 5.0 + n, 10.0 - n, 0.1 * n, 128) for n in range(6)]
    groups = {f"image{n}": "plate 1" if n < 4 else "plate 2" for n in range(5)}
    focus, contrast, light = drawn(viz.image_quality(values, groups, flagged=2)).axes
    assert [t.get_text() for t in focus.get_yticklabels()] == ["unknown (1)", "plate 2 (1)", "plate 1 (4)"]
    dots = [sorted(line.get_xdata()) for line in focus.lines if line.get_marker() == "o"]
    assert dots == [[10], [9], [5, 6, 7, 8]]
    assert focus.get_xlabel() == "lowest: image0, image1"
    assert contrast.get_xlabel() == "lowest: image5, image4"
    assert light.get_xlabel() == "largest: image5, image4"
    drawn(viz.image_quality([], {}))


def test_of_many_groups_the_smallest_share_a_row(drawn) -> None:
    values = [Quality(f"i{n}", 1.0, 1.0, 0.0, 1.0) for n in range(60)]
    groups = {f"i{n}": f"well {min(n, 40):02}" for n in range(60)}
    axes = drawn(viz.image_quality(values, groups)).axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert len(labels) == 21
    assert "21 smaller groups (21)" in labels
    assert "well 40 (20)" in labels


def test_near_duplicates_stand_side_by_side_with_their_folds(drawn, tmp_path: Path) -> None:
    frames = []
    for n in range(3):
        Image.fromarray(np.full((20, 30), 40 * n, np.uint8)).save(tmp_path / f"{n}.png")
        frames.append(Frame(f"image{n}", tmp_path / f"{n}.png", 20, 30))
    figure = drawn(viz.near_duplicates(frames, [Pair("image0", "image2", 0.91)], {"image0": 3}))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["image0, fold 3\nsimilarity 0.91", "image2, not in a fold\nsimilarity 0.91"]
    (axes,) = drawn(viz.near_duplicates(frames, [], {})).axes
    assert axes.get_title(loc="left") == "No near duplicates among 3 images"


def test_grey_levels_name_their_mean_and_spread(drawn) -> None:
    two = np.zeros(256)
    two[[100, 120]] = 0.5
    (axes,) = drawn(viz.grey_levels({"labelled": two, "unlabelled": np.eye(256)[130]})).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["labelled, 110 ± 10", "unlabelled, 130 ± 0"]
    assert axes.get_xlim() == (98, 132)
    drawn(viz.grey_levels({}))


def test_sets_are_compared_by_size_and_density(drawn) -> None:
    def frame(name: str, *sides: int) -> Frame:
        masks = [rle.from_crop(np.ones((side, side)), 0, 0, 100, 100) for side in sides]
        return Frame(name, None, 100, 100, tuple(Cell(mask, "cell") for mask in masks))

    sets = {"cort": [frame("a", 10, 10), frame("b", 30)], "LIVECell": [frame("c", 20)], "none": [frame("d")]}
    areas, density = drawn(viz.compare_sets(sets)).axes
    labels = [text.get_text() for text in areas.get_legend().get_texts()]
    assert labels == ["cort, median 100", "LIVECell, median 400"]
    assert areas.lines[0].get_xdata().tolist() == [100, 100, 900]
    assert areas.lines[0].get_ydata() == pytest.approx([1 / 3, 2 / 3, 1])
    # One and two cells on 0.01 megapixels.
    assert density.lines[0].get_xdata().tolist() == [100, 200]
