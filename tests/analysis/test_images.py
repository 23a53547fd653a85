"""Image quality and near duplicates: synthetic pictures whose quality is known, and the real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.filters import laplace

from kitlib.analysis import images
from kitlib.analysis.images import Pair, Quality
from kitlib.data import competition, synthetic
from kitlib.data.images import read_image
from kitlib.data.synthetic.frames import frame as synthetic_frame
from kitlib.errors import KitError
from kitlib.records import Frame


@pytest.fixture
def saved(tmp_path: Path):
    """``saved(pixels, name)``: a frame with these grey levels."""

    def save(pixels: np.ndarray, name: str = "a") -> Frame:
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(path)
        return Frame(name, path, *pixels.shape)

    return save


def quality(frame: Frame) -> Quality:
    return images.measure(frame).quality


def near_duplicates(frames: list[Frame]) -> list[Pair]:
    return images.near_duplicates([images.measure(frame) for frame in frames])


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Three synthetic pictures of different cells."""
    return [synthetic_frame("cort", seed, (256, 320))[0].astype(float) for seed in range(3)]


def test_a_blurred_picture_is_less_sharp_whatever_its_contrast(saved, pictures) -> None:
    sharp = quality(saved(pictures[0]))
    blurred = quality(saved(cv2.GaussianBlur(pictures[0], (0, 0), 2), "b"))
    pale = quality(saved(pictures[0].mean() + 0.5 * (pictures[0] - pictures[0].mean()), "c"))
    assert blurred.focus < 0.3 * sharp.focus
    assert pale.focus == pytest.approx(sharp.focus, rel=0.1)
    assert pale.contrast == pytest.approx(0.5 * sharp.contrast, rel=0.05)


def test_sharpness_is_the_variance_of_scikit_image_s_laplacian(pictures) -> None:
    grey = pictures[1].astype(np.uint8)
    inner = slice(1, -1), slice(1, -1)
    expected = laplace(grey.astype(float))[inner].var() / grey.var()
    assert images.sharpness(grey) == pytest.approx(expected, rel=0.02)
    assert images.sharpness(np.full((9, 9), 7, np.uint8)) == 0


def test_a_ramp_of_light_is_uneven(saved) -> None:
    """From 100 to 140: the middles of the first and the last quarter lie 30 apart, around 120."""
    ramp = np.tile(np.linspace(100, 140, 400), (200, 1))
    found = quality(saved(ramp))
    assert found.gradient == pytest.approx(30 / 120, rel=0.02)
    assert found.brightness == pytest.approx(120, abs=0.1)
    assert quality(saved(np.full((40, 40), 90.0), "b")).gradient == 0
    assert quality(saved(np.zeros((40, 40)), "c")).gradient == 0


def test_the_same_place_is_found_brighter_noisier_and_with_other_cells(saved, pictures) -> None:
    rng = np.random.default_rng(0)
    again = pictures[0] + 20 + rng.normal(0, 5, pictures[0].shape)
    # A third of the picture has changed.
    again[:, :100] = pictures[2][:, :100] + 20
    frames = [saved(picture, f"p{n}") for n, picture in enumerate(pictures)] + [saved(again, "again")]
    (pair,) = near_duplicates(frames)
    assert (pair.first, pair.second) == ("p0", "again")
    assert 0.5 < pair.similarity < 0.9


def test_equal_files_have_a_similarity_of_one_and_blank_ones_none(saved, pictures) -> None:
    frames = [saved(pictures[0], "one"), saved(pictures[0], "two")]
    frames += [saved(np.full((64, 64), level), f"blank{level}") for level in (0, 128)]
    (pair,) = near_duplicates(frames)
    assert pair.similarity == pytest.approx(1, abs=1e-5)
    assert images.near_duplicates([]) == []


def test_one_reading_measures_what_numpy_does(saved, pictures) -> None:
    frame = saved(pictures[2])
    pixels, found = read_image(frame.path), images.measure(frame)
    assert found.quality.brightness == pytest.approx(pixels.mean())
    assert found.quality.contrast == pytest.approx(pixels.std())
    counts = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    np.testing.assert_allclose(found.shares, counts, rtol=1e-6)
    np.testing.assert_array_equal(images.read_shares(frame), found.shares)


def test_pairs_within_a_fold_give_nothing_away() -> None:
    pairs = [Pair("a", "b", 0.9), Pair("a", "c", 0.8), Pair("a", "unlabelled", 0.7)]
    assert images.across_folds(pairs, {"a": 0, "b": 0, "c": 1}) == [Pair("a", "c", 0.8)]


def test_grey_levels_count_every_image_the_same(saved) -> None:
    frames = [saved(np.full((10, 10), 5.0)), saved(np.full((50, 50), 9.0), "b")]
    shares = images.grey_levels(map(images.read_shares, frames))
    assert (shares[5], shares[9], shares.sum()) == (0.5, 0.5, 1)
    assert images.grey_levels([]).sum() == 0


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="does not exist"):
        quality(Frame("a", tmp_path / "gone.png", 9, 9))


def test_real_images_are_sharp_even_and_all_different(real_competition: Path) -> None:
    frames = [*competition.labelled(real_competition), *competition.unlabelled(real_competition)]
    assert near_duplicates(frames) == []
    found = [quality(frame) for frame in frames[:6]]
    assert all(each.focus > 3 and each.contrast > 5 and each.gradient < 0.02 for each in found)


def test_synthetic_folders_hold_no_near_duplicates(tmp_path: Path) -> None:
    frames = competition.labelled(synthetic.write(tmp_path / "cells", images=6, size=(96, 128)))
    assert near_duplicates(frames) == []
