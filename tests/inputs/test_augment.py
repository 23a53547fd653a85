"""Where views lie, what settings are refused, and that grey levels change as much as asked and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import config
from kitlib.errors import KitError
from kitlib.inputs.augment import View, draw_view, orient, photometric
from kitlib.inputs.config import AugmentConfig
from kitlib.inputs.patch import Patch, PatchCell
from kitlib.masks import rle
from kitlib.records import Cell, Frame

OFF = AugmentConfig(cell_centred=0.0, flip=False, rot90=False)


def frame(cells: int = 1, height: int = 520, width: int = 704) -> Frame:
    """A frame with 10 x 10 cells at (600, 50), (590, 50), ..."""
    squares = (rle.from_crop(np.ones((10, 10)), 600 - 10 * i, 50, height, width) for i in range(cells))
    return Frame("f", None, height, width, tuple(Cell(m, "cort") for m in squares), "cort")


def views(settings: AugmentConfig, of: Frame | None = None, number: int = 200) -> list[View]:
    rng = np.random.default_rng(0)
    return [draw_view(of or frame(), settings, rng) for _ in range(number)]


# -------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"copy_paste": 1.5}, "copy_paste must be at most 1"),
        ({"min_visible": -0.1}, "min_visible must be at least 0"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"scale": (2.0, 1.0)}, r"scale must be \(lowest, highest\)"),
        ({"scale_by_type": {"astro": (2.0, 1.0)}}, r"scale_by_type of astro must be \(lowest, highest\)"),
        ({"scale_by_type": {"astro": (0.0, 1.0)}}, r"scale_by_type\.astro\.0 must be above 0"),
        ({"scale": (0.0, 1.0)}, r"scale\.0 must be above 0"),
        ({"crop": (0, 100)}, r"crop\.0 must be above 0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(KitError, match=words):
        AugmentConfig(**values)


def test_settings_survive_being_written_and_read():
    settings = AugmentConfig(
        crop=(320, 448),
        scale=(0.8, 1.5),
        scale_by_type={"astro": (0.5, 1.0)},
    )
    assert config.from_dict(AugmentConfig, config.to_dict(settings)) == settings
    with pytest.raises(KitError, match="'copy_paste'"):
        config.from_dict(AugmentConfig, {"copypaste": 0.5})


# -------------------------------------------------------------------------------- where views lie


def test_by_default_the_whole_frame_is_seen():
    for settings in (AugmentConfig(), OFF):
        assert set(views(settings)) == {View((520, 704), (0, 0, 704, 520))}


def test_scale_and_crop_stay_in_their_ranges():
    found = views(AugmentConfig(scale=(0.8, 1.5), crop=(300, 400), cell_centred=0.0))
    heights = [v.size[0] for v in found]
    assert 416 <= min(heights) < 430
    assert 765 < max(heights) <= 780
    assert all(abs(v.size[1] / v.size[0] - 704 / 520) < 0.01 for v in found)
    assert all(v.window[0] >= 0 and v.window[2] <= v.size[1] and v.window[3] <= v.size[0] for v in found)
    assert {(v.window[3] - v.window[1], v.window[2] - v.window[0]) for v in found} == {(300, 400)}


def test_a_type_may_have_a_scale_of_its_own():
    settings = AugmentConfig(scale=(1.5, 2.0), scale_by_type={"astro": (0.5, 0.6)}, crop=(50, 50))
    astro = [v.size[0] for v in views(settings, dataclasses.replace(frame(), category="astro"))]
    assert 260 <= min(astro) < 264
    assert 308 < max(astro) <= 312
    for other in ("cort", None):
        sizes = [v.size[0] for v in views(settings, dataclasses.replace(frame(), category=other))]
        assert 780 <= min(sizes) <= max(sizes) <= 1040


def test_a_crop_larger_than_the_frame_starts_at_its_corner():
    (view,) = set(views(AugmentConfig(crop=(600, 700), cell_centred=0.0), frame(height=520, width=700)))
    assert view.window == (0, 0, 700, 600)


def test_crops_reach_every_place_of_the_frame():
    found = views(AugmentConfig(crop=(519, 702), cell_centred=0.0), number=300)
    assert {v.window[:2] for v in found} == {(x, y) for x in range(3) for y in range(2)}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_crops_holds_the_middle_of_a_cell(share):
    found = views(AugmentConfig(crop=(64, 64), cell_centred=share), number=1000)
    holding = [v.window[0] <= 605 < v.window[2] and v.window[1] <= 55 < v.window[3] for v in found]
    by_chance = 64 * 55 / ((704 - 63) * (520 - 63))
    assert np.mean(holding) == pytest.approx(share + (1 - share) * by_chance, abs=0.05)


@given(
    height=st.integers(10, 120),
    width=st.integers(10, 120),
    scale=st.floats(0.3, 5),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_part_near_a_window_holds_all_that_its_pixels_are_made_of(height, width, scale, place):
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    x, y = int(place[0] * (size[1] - 1)), int(place[1] * (size[0] - 1))
    near = View(size, (x, y, x + 1, y + 1)).near((height, width))
    for axis, at, old in ((0, x, width), (1, y, height)):
        centre = (at + 0.5) * old / size[1 - axis] - 0.5
        assert near[axis] <= max(np.floor(centre), 0)
        assert min(np.floor(centre) + 1, old - 1) < near[axis + 2] <= old


# -------------------------------------------------------------------------------- flips, rotation


def test_all_eight_ways_round_are_equally_likely():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    patch = Patch(image, (PatchCell(0, 0, np.ones((1, 1), bool), 0, 1.0),))
    rng, seen = np.random.default_rng(0), {}
    for _ in range(1600):
        found = orient(patch, AugmentConfig(), rng)
        cell = found.cells[0]
        assert found.image[cell.y, cell.x] == 0  # the cell stays on its pixel
        seen.setdefault(found.image.tobytes() + bytes(found.size), []).append(1)
    assert len(seen) == 8
    assert min(map(len, seen.values())) > 150


def test_flips_and_rotations_can_be_switched_off():
    patch = Patch(np.arange(6, dtype=np.uint8).reshape(2, 3), ())
    rng = np.random.default_rng(0)
    flips = {orient(patch, AugmentConfig(rot90=False), rng).image.tobytes() for _ in range(60)}
    rotations = {orient(patch, AugmentConfig(flip=False), rng).image.tobytes() for _ in range(60)}
    assert len(flips) == len(rotations) == 4


def test_flips_may_be_left_right_only():
    patch = Patch(np.arange(6, dtype=np.uint8).reshape(2, 3), ())
    rng, config = np.random.default_rng(0), AugmentConfig(flip_vertical=False, rot90=False)
    seen = [orient(patch, config, rng).image.tolist() for _ in range(60)]
    as_it_is, mirrored = [[0, 1, 2], [3, 4, 5]], [[2, 1, 0], [5, 4, 3]]
    assert 20 < seen.count(mirrored) < 40
    assert seen.count(as_it_is) + seen.count(mirrored) == 60
    assert orient(patch, OFF, rng) == patch


# -------------------------------------------------------------------------------- how bright


def ramp() -> np.ndarray:
    return np.tile(np.arange(40, 200, dtype=np.uint8), (160, 1))


def changed(number: int = 100, **settings: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        photometric(ramp(), dataclasses.replace(OFF, **settings), rng).astype(float) for _ in range(number)
    ]


def test_nothing_asked_nothing_done():
    image = ramp()
    assert photometric(image, OFF, np.random.default_rng(0)) is image


def test_brightness_scales_the_mean():
    means = [image.mean() / ramp().mean() for image in changed(brightness=0.2)]
    assert 0.8 <= min(means) < 0.82
    assert 1.18 < max(means) <= 1.2


def test_contrast_keeps_the_mean_and_scales_the_spread():
    images = changed(contrast=0.3)
    assert all(abs(image.mean() - ramp().mean()) < 0.5 for image in images)
    spreads = [image.std() / ramp().std() for image in images]
    assert 0.69 < min(spreads) < 0.73
    assert 1.27 < max(spreads) < 1.31


def test_gamma_keeps_the_order_of_levels():
    images = changed(gamma=0.4)
    assert all((np.diff(image[0]) >= 0).all() for image in images)
    expected = [255 * (100 / 255) ** np.exp(g) for g in (0.4, -0.4)]
    assert min(image[0, 60] for image in images) == pytest.approx(expected[0], abs=3)
    assert max(image[0, 60] for image in images) == pytest.approx(expected[1], abs=3)


def test_noise_has_up_to_the_deviation_asked():
    deviations = [(image - ramp()).std() for image in changed(noise=8.0)]
    assert min(deviations) < 1
    assert 7.5 < max(deviations) < 8.3


def test_blur_softens_an_edge():
    edge = np.repeat(np.array([50, 200], np.uint8), 50)[None].repeat(40, 0)
    rng = np.random.default_rng(0)
    steepest = [
        np.diff(photometric(edge, dataclasses.replace(OFF, blur=2.0), rng)[20].astype(float)).max()
        for _ in range(50)
    ]
    assert max(steepest) == 150
    assert min(steepest) == pytest.approx(150 / (2 * np.sqrt(2 * np.pi)), rel=0.1)


def test_levels_stay_in_range():
    extreme = np.array([[0, 255]], np.uint8).repeat(50, 0).repeat(50, 1)
    settings = AugmentConfig(brightness=0.5, contrast=0.5, gamma=0.5, noise=30, blur=1)
    found = photometric(extreme, settings, np.random.default_rng(0))
    assert found.dtype == np.uint8
    assert found[:, :40].mean() < 100 < 150 < found[:, -40:].mean()  # nothing wrapped around
