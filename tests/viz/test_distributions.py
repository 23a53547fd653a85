"""Figures of data sets: the numbers that they show."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib import viz
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def frame(name: str, category: str | None, *sides: int) -> Frame:
    """A frame with a square cell of each side."""
    masks = [rle.from_crop(np.ones((s, s)), 0, 0, 100, 100) for s in sides]
    return Frame(name, None, 100, 100, tuple(Cell(m, category or "cell") for m in masks), category)


TWO = [frame("a", "cort", 4, 6, 8), frame("b", "cort"), frame("c", "astro", 10)]


def ticks(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_types_counts_images_and_cells(drawn) -> None:
    images, cells = drawn(viz.types(TWO)).axes
    assert (ticks(images), [bar.get_width() for bar in images.patches]) == (["cort", "astro"], [2, 1])
    assert (ticks(cells), [bar.get_width() for bar in cells.patches]) == (["cort", "astro"], [3, 1])


def test_every_image_is_a_dot_beside_the_median(drawn) -> None:
    (axes,) = drawn(viz.cells_per_image(TWO)).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [sorted(line.get_xdata().tolist()) for line in dots] == [[0, 3], [1]]
    assert [text.get_text() for text in axes.texts] == [" median 1.5", " median 1"]


def test_histograms_of_sizes_hold_all_cells(drawn) -> None:
    """Equal areas on the logarithmic axis are equal numbers of cells."""
    rng = np.random.default_rng(0)
    frames = [frame(str(n), "cort", *rng.integers(5, 60, 20).tolist()) for n in range(5)]
    areas, sides = drawn(viz.cell_sizes(frames)).axes
    assert sides.get_xscale() == areas.get_xscale() == "log"
    for axes in (areas, sides):
        heights, edges, _ = axes.patches[0].get_data()
        assert (heights * np.diff(np.log(edges))).sum() == pytest.approx(1)
    values = [s for f in frames for s in rle.boxes([c.mask for c in f.cells])[:, 2]]
    assert sides.get_legend().get_texts()[0].get_text() == f"cort, median {np.median(values):.0f}"


def test_equal_numbers_of_every_side_make_no_comb(drawn) -> None:
    """Bins between whole numbers: none holds two of them where its equally wide neighbour holds one."""
    sides = [side for side in range(10, 80) for _ in range(round(1000 / side))]  # even on a logarithmic axis
    axes = drawn(viz.cell_sizes([frame("a", "cort", *sides)])).axes[1]
    heights = axes.patches[0].get_data().values
    assert heights.max() / heights.min() < 1.1


def test_folds_are_stacked_by_type(drawn) -> None:
    (axes,) = drawn(viz.folds(TWO, {"a": 0, "b": 1, "c": 0})).axes
    assert [(bar.get_x() + 0.3, bar.get_y(), bar.get_height()) for bar in axes.patches] == [
        (0, 0, 1),  # astro
        (1, 0, 0),
        (0, 1, 1),  # cort
        (1, 0, 1),
    ]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fold 0", "fold 1"]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [frame("a", "cort", 5)],
        [frame("a", "cort")],
        [frame("a", None, 1)],
        [frame(f"{n}", f"own type {n}", 5, 5, 9) for n in range(12)],
        [frame("a", None), frame("b", "cort", 100)],
    ],
    ids=["nothing", "one cell", "no cells", "no type", "twelve types of one's own", "with and without type"],
)
def test_sets_of_every_kind_are_drawn(drawn, frames: list[Frame]) -> None:
    drawn(viz.types(frames))
    drawn(viz.cells_per_image(frames))
    drawn(viz.cell_sizes(frames))
    drawn(viz.folds(frames, {f.id: n % 3 for n, f in enumerate(frames)}))


def test_frames_of_no_type_are_of_unknown_type(drawn) -> None:
    assert ticks(drawn(viz.types([frame("a", None, 3)])).axes[0]) == ["unknown"]
