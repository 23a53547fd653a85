"""Cells drawn on frames: outlines and colours worked out by hand, and frames of every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from kitlib import viz
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.viz import cells, style

SIZE = (8, 12)


def cell(*rows: str) -> Cell:
    """A cell from a drawing of the frame's upper left part."""
    mask = np.zeros(SIZE, bool)
    for y, row in enumerate(rows):
        mask[y, : len(row)] = [letter == "#" for letter in row]
    return Cell(rle.from_mask(mask), "cort")


def frame(*found: Cell, path: Path | None = None, category: str | None = "cort") -> Frame:
    return Frame("a", path, *SIZE, found, category)


BLOCK = cell("", "  ###", "  ###", "  ###")
RING = cell("###", "# #", "###")
PIXEL = cell("", "", "", "", "", "", "", "           #")  # in the frame's last corner
NOTHING = cell()


def outlines(each: Cell) -> list[np.ndarray]:
    box = rle.boxes([each.mask])[0]
    return cells.outlines(rle.crop(each.mask, box), box)


# ---------------------------------------------------------------------------------------- geometry


def test_an_outline_goes_through_the_outermost_pixels_and_closes() -> None:
    (line,) = outlines(BLOCK)
    around = {(2, 1), (3, 1), (4, 1), (4, 2), (4, 3), (3, 3), (2, 3), (2, 2)}
    assert {tuple(point) for point in line.tolist()} == around
    assert len(line) == 9
    assert line[0].tolist() == line[-1].tolist()
    assert np.abs(np.diff(line, axis=0)).sum(axis=1).max() == 1  # no step is longer than a pixel


def test_a_hole_has_an_outline_of_its_own_and_so_has_every_part() -> None:
    outer, inner = sorted(outlines(RING), key=len, reverse=True)
    assert {tuple(p) for p in outer.tolist()} == {(x, y) for x in range(3) for y in range(3)} - {(1, 1)}
    assert {tuple(p) for p in inner.tolist()} == {(1, 0), (0, 1), (2, 1), (1, 2)}
    assert len(outlines(cell("##  ##"))) == 2


def test_a_pixel_and_no_pixel() -> None:
    (line,) = outlines(PIXEL)
    assert line.tolist() == [[11, 7], [11, 7]]
    assert outlines(NOTHING) == []


def shown(each: Frame, colors: list):
    axes = Figure().subplots()
    cells.overlay(axes, each, colors)
    return axes.images[0].get_array(), axes.collections[0]


def test_cells_are_tinted_and_outlined_each_in_its_colour() -> None:
    picture, lines = shown(frame(BLOCK, PIXEL), ["#ff0000", (0.0, 0.0, 1.0)])
    grey = 128 / 255
    expected = np.full((*SIZE, 3), grey)
    expected[1:4, 2:5] = (1 - cells.FILL) * grey + cells.FILL * np.array([1, 0, 0])
    expected[7, 11] = (1 - cells.FILL) * grey + cells.FILL * np.array([0, 0, 1])
    np.testing.assert_allclose(picture, expected, atol=1e-6)
    assert [to_hex(color) for color in lines.get_colors()] == ["#ff0000", "#0000ff"]


def test_where_cells_overlap_both_tint() -> None:
    picture, _ = shown(frame(BLOCK, cell("", "", "  #")), ["#000000", "#000000"])
    assert picture[2, 2, 0] == pytest.approx(128 / 255 * (1 - cells.FILL) ** 2)
    assert picture[1, 2, 0] == pytest.approx(128 / 255 * (1 - cells.FILL))


def test_a_frame_without_cells_is_its_picture() -> None:
    picture, lines = shown(frame(), [])
    assert np.ptp(picture) == 0
    assert len(lines.get_segments()) == 0


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_contrast_is_stretched_in_proportion(tmp_path: Path) -> None:
    """Phase contrast keeps to some 60 of 256 grey levels."""
    pixels = np.linspace(95, 155, 96).round().clip(100, 150).reshape(SIZE)
    levels = cells.stretched(frame(path=save(tmp_path / "a.png", pixels)))
    assert (levels.min(), levels.max()) == (15, 240)
    middle = (pixels > 110) & (pixels < 140)
    assert np.ptp(levels[middle] / 255 - (pixels[middle] - 100) / 50 * 225 / 255) < 0.01


def test_a_flat_image_stays_flat(tmp_path: Path) -> None:
    levels = cells.stretched(frame(path=save(tmp_path / "a.png", np.full(SIZE, 200))))
    assert np.unique(levels).tolist() == [15]


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"gone\.png does not exist"):
        viz.gallery([frame(path=tmp_path / "gone.png")])


def test_neighbours_differ_in_colour() -> None:
    colors = np.array(cells.rainbow(800))
    assert colors.shape == (800, 3)
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 0.5
    assert cells.rainbow(0) == []


# ----------------------------------------------------------------------------------------- figures


def test_a_gallery_shows_each_frame_once(drawn) -> None:
    frames = [frame(BLOCK, RING), frame(), replace(frame(PIXEL), id="x" * 30, category=None)]
    axes = drawn(viz.gallery(frames, columns=2)).axes
    assert [each.get_title(loc="left") for each in axes[:3]] == [
        "cort  a  2 cells",
        "cort  a  no cells",
        f"{'x' * 11}…{'x' * 11}  1 cell",
    ]
    assert [len(each.images) for each in axes] == [1, 1, 1, 0]
    assert not axes[3].axison


def test_nothing_to_show(drawn) -> None:
    assert not any(each.axison for each in drawn(viz.gallery([])).axes)
    assert not any(each.axison for each in drawn(viz.before_after([], [])).axes)


def test_eight_hundred_cells(drawn) -> None:
    rng = np.random.default_rng(0)
    disc = np.hypot(*np.mgrid[-6:7, -8:9]) < 7
    places = zip(rng.integers(-5, 700, 800).tolist(), rng.integers(-5, 515, 800).tolist(), strict=True)
    crowd = tuple(Cell(rle.from_crop(disc, x, y, 520, 704), "shsy5y") for x, y in places)
    (axes,) = drawn(viz.gallery([Frame("crowd", None, 520, 704, crowd, "shsy5y")], columns=1)).axes
    assert 790 < len(axes.collections[0].get_segments()) < 830


def test_found_missed_and_wrong_cells_have_their_colours(drawn) -> None:
    """BLOCK is found (IoU 6 / 9), RING is missed, and a pixel is wrong."""
    smaller = cell("", "  ###", "  ###")
    truth, predicted = frame(BLOCK, RING), replace(frame(smaller, PIXEL), path=None)
    image, left, right = drawn(viz.before_after([truth], [predicted])).axes
    assert len(image.collections) == 0
    assert outline_colors(left) == [style.FOUND, style.MISSED, style.MISSED]  # a ring has two outlines
    assert outline_colors(right) == [style.FOUND, style.WRONG]
    assert left.get_title(loc="left") == "truth: 2 cells, 1 missed (blue)"
    assert (
        right.get_title(loc="left") == "predicted: 2 cells, 1 wrong (orange), score 0.13"
    )  # 4 thresholds of 1 / 3


def outline_colors(axes) -> list[str]:
    return [to_hex(color).upper() for color in axes.collections[0].get_colors()]


def test_predictions_are_drawn_on_the_true_frame_s_image(drawn, tmp_path: Path) -> None:
    """Tables of predictions name no images."""
    pixels = np.arange(96).reshape(SIZE)
    truth = frame(BLOCK, path=save(tmp_path / "a.png", pixels))
    _, left, right = drawn(viz.before_after([truth], [replace(frame(), id="a")])).axes
    assert np.ptp(left.images[0].get_array()) > 0.5
    assert np.ptp(right.images[0].get_array()) > 0.5


def test_frames_without_predictions_and_without_cells(drawn) -> None:
    axes = drawn(viz.before_after([frame(BLOCK), replace(frame(), id="b")], [])).axes
    titles = [each.get_title(loc="left") for each in axes]
    assert titles[1:3] == [
        "truth: 1 cell, 1 missed (blue)",
        "predicted: 0 cells, 0 wrong (orange), score 0.00",
    ]
    assert titles[4:6] == [
        "truth: 0 cells, 0 missed (blue)",
        "predicted: 0 cells, 0 wrong (orange), score 1.00",
    ]


def test_colours_of_types_are_told_apart() -> None:
    own = [f"line {n}" for n in range(8)]
    assert len({style.color(name, own) for name in [*own, "astro", "cort", "shsy5y"]}) == 11
    assert style.color("line 3", own) == style.color("line 3", own[::-1])
    assert style.tint("#000000", 0.25) == (0.75, 0.75, 0.75)
    assert style.tint(style.INK, 1.0) == pytest.approx(to_rgb(style.INK))


# ------------------------------------------------------------------------------- images of odd sizes


@pytest.mark.parametrize("size", [(520, 1), (1, 50_000), (3000, 2), (1500, 2100)])
def test_a_figure_stays_small_whatever_the_image_is(drawn, tmp_path: Path, size: tuple[int, int]) -> None:
    disc = Cell(rle.from_crop(np.ones((9, 9)), 0, 0, *size), "c" * 1000)
    odd = Frame("i" * 1000, save(tmp_path / "a.png", np.zeros(size)), *size, (disc,), "c" * 1000)
    for figure in (viz.gallery([odd] * 9), viz.before_after([odd] * 4, [odd])):
        assert max(figure.get_size_inches()) <= 40
        assert max(max(axes.images[0].get_array().shape) for axes in figure.axes if axes.images) <= 1024
    drawn(viz.gallery([odd] * 2))


def test_a_figure_of_many_rows_is_bounded() -> None:
    assert style.figure(12, 2080)[0].get_size_inches().tolist() == [12, 60]


def test_of_large_frames_every_nth_pixel_is_drawn_with_cells_in_place() -> None:
    """Every third row and column of 2,100 x 3,000 pixels: rows 900 to 1,499 are rows 300 to 499 of them."""
    size = (2100, 3000)
    block = Cell(rle.from_crop(np.ones((600, 301)), 1200, 900, *size), "cort")
    bar = Cell(rle.from_crop(np.ones((1, 3000)), 0, 1, *size), "cort")  # in a row that is not drawn
    picture, lines = shown(Frame("a", None, *size, (block, bar, Cell(rle.from_runs([], [], *size), "x"))),
                           ["#ff0000", "#00ff00", "#0000ff"])  # fmt: skip
    assert picture.shape == (700, 1000, 3)
    rows, columns = np.nonzero(np.abs(picture[..., 0] - 128 / 255) > 0.01)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (300, 499, 400, 500)
    assert len(lines.get_segments()) == 1


# ------------------------------------------------------------------------------------------ titles


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a", "b"], ["a", "b"]),
        ([], []),
        (["cort[density]_B2-1_Vessel-401_" + day for day in ("2020-05-11", "2020-05-12")], ["1", "2"]),
        ([f"cort_{well}_Vessel-401_2020-05-11_11h30m00s_Ph_2" for well in ("A1", "B7")], ["A1", "B7"]),
        (["x" * 40, "x" * 20 + "yz" + "x" * 18, "z" * 40], ["#1", "#2", "z"]),
        (["x" * 30, "x" * 40], ["", ""]),
    ],
    ids=["short", "none", "end", "start", "in the middle", "one begins with the other"],
)
def test_names_that_are_cut_stay_different(names: list[str], shown: list[str]) -> None:
    cut = style.short_names(names)
    assert len(set(cut)) == len(names)
    assert all(len(text) <= 28 for text in cut)
    assert all(part in text for part, text in zip(shown, cut, strict=True))


def test_ignored_areas_are_striped_and_named(drawn) -> None:
    ignore = np.zeros(SIZE, bool)
    ignore[:, :6] = True
    doubtful = replace(frame(), ignore=rle.from_mask(ignore))
    (axes,) = drawn(viz.gallery([doubtful], columns=1)).axes
    assert axes.get_title(loc="left").endswith("50% of the area ignored in training (striped)")
    picture = axes.images[0].get_array()
    coloured = np.ptp(picture, axis=2) > 0.01
    assert not coloured[:, 6:].any()
    assert 0.3 < coloured[:, :6].mean() < 0.7


def test_a_type_taken_for_another_is_named(drawn) -> None:
    _, _, right = drawn(viz.before_after([frame(BLOCK)], [frame(BLOCK, category="astro")])).axes
    assert right.get_title(loc="left").endswith("score 1.00,\ntaken for astro")
