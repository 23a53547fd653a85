"""Corrections of masks, on shapes that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.viewer import edits


def mask(*rows: str) -> rle.RLE:
    """A mask drawn in text: # inside."""
    return rle.from_mask(np.array([[letter == "#" for letter in row] for row in rows]))


def rows(r: rle.RLE) -> list[str]:
    return ["".join("#" if inside else "." for inside in row) for row in rle.to_mask(r)]


def test_an_outline_along_pixel_edges_encloses_these_pixels() -> None:
    assert rows(edits.from_outline([(1, 1), (4, 1), (4, 3), (1, 3)], 4, 5)) == [
        ".....",
        ".###.",
        ".###.",
        ".....",
    ]


def test_a_triangle_has_the_pixels_whose_centres_lie_in_it() -> None:
    """The hypotenuse from (0, 0) to (4, 4) runs through the centres of the diagonal, just off it here."""
    assert rows(edits.from_outline([(0, 0.1), (4, 4.1), (0, 4.1)], 4, 4)) == ["....", "#...", "##..", "###."]


def test_an_outline_is_cut_off_at_the_frame() -> None:
    assert rows(edits.from_outline([(-3, -2), (2, -2), (2, 1), (-3, 1)], 2, 3)) == ["##.", "..."]
    assert rows(edits.from_outline([(2, 1), (9, 1), (9, 9), (2, 9)], 2, 3)) == ["...", "..#"]


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 1), (3, 3)],  # a line
        [(1, 1), (1.2, 1), (1.2, 1.2)],  # smaller than a pixel, beside its centre
        [(20, 20), (30, 20), (30, 30)],  # outside the frame
        [(-9, -9), (-1, -9), (-1, -1)],
    ],
)
def test_an_outline_without_a_pixel_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(KitError, match="encloses no pixel"):
        edits.from_outline(points, 8, 8)


def test_points_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(KitError, match="no number"):
        edits.from_outline([(0, 0), (np.nan, 4), (4, 4)], 8, 8)


@given(st.integers(0, 10_000))
def test_a_star_has_the_pixels_that_matplotlib_finds_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = 10 + rng.uniform(2, 9, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = np.stack(np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5), axis=-1).reshape(-1, 2)
    expected = Outline([*points, points[0]], closed=True).contains_points(centres).reshape(20, 20)
    if expected.any():
        assert (rle.to_mask(edits.from_outline(points, 20, 20)) == expected).all()


def test_a_bar_is_cut_in_two() -> None:
    """Column 3 is the line; its pixels, equally near to both sides, go to one of them."""
    bar = mask("........", ".######.", ".######.", "........")
    pieces = sorted(rows(piece)[1] for piece in edits.split(bar, [(3.5, 0.5), (3.5, 3.5)]))
    assert pieces in ([".###....", "....###."], [".##.....", "...####."])


def test_a_diagonal_line_cuts_through_corners() -> None:
    square = mask(*["######"] * 6)
    pieces = edits.split(square, [(0.5, 0.5), (5.5, 5.5)])
    assert len(pieces) == 2
    assert rle.areas(pieces).sum() == 36
    assert rle.areas(pieces).min() >= 10


def test_a_cross_line_through_two_arms_makes_three_pieces() -> None:
    u = mask("##..##", "##..##", "##..##", "######")
    pieces = edits.split(u, [(-1, 1.5), (7, 1.5)])
    assert len(pieces) == 3
    assert rle.areas(pieces).sum() == 18


def test_a_part_that_the_line_does_not_touch_stays_with_the_largest_piece() -> None:
    two = mask("########.##", "########.##")
    larger, smaller = edits.split(two, [(2.5, -1), (2.5, 3)])
    assert rows(larger)[0].endswith(".##")
    assert rle.areas([larger, smaller]).sum() == 20


@pytest.mark.parametrize("line", [[(0, 0), (0, 7)], [(2.5, 1.5), (3.5, 1.5)], [(3, 3)], []])
def test_a_line_beside_or_within_a_cell_is_refused(line: list[tuple[float, float]]) -> None:
    cell = mask("........", ".######.", ".######.", ".######.", "........")
    with pytest.raises(KitError, match="does not cut the cell in two"):
        edits.split(cell, line)


@given(st.integers(0, 10_000))
def test_pieces_are_a_partition_of_the_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = rle.from_mask(rng.random((12, 15)) < 0.7)
    try:
        pieces = edits.split(cell, rng.uniform(-2, 16, (3, 2)))
    except KitError:
        return
    stack = np.stack([rle.to_mask(piece) for piece in pieces])
    assert (stack.sum(axis=0) == rle.to_mask(cell)).all()
    assert stack.any(axis=(1, 2)).all()
    areas = rle.areas(pieces).tolist()
    assert areas == sorted(areas, reverse=True)
