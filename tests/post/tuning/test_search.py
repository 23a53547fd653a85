"""Tuning: its scores are the metric's, its thresholds those that hand-made frames ask for."""

from dataclasses import replace

import numpy as np
import pytest

from kitlib import metric
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.tuning.search import MIN_AREAS, SCORE_THRESHOLDS, plateau_centre, tune
from kitlib.records import Cell, Frame, voted_category

SIZE = (120, 160)


def blob(rng, x, y, side, category, score=None):
    mask = np.ones((side, side), bool)
    mask[0, : rng.integers(0, side)] = False
    return Cell(rle.from_crop(mask, int(x), int(y), *SIZE), category, score)


def held_out(seed=0, frames=6):
    """Frames with overlapping truth, and predictions that are the worse the lower their score."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], []
    for number in range(frames):
        category = ("cort", "astro")[number % 2]
        cells, found = [], []
        for _ in range(15):
            x, y, side = rng.integers(0, 150), rng.integers(0, 110), rng.integers(6, 16)
            cells.append(blob(rng, x, y, side, category))
            for _ in range(3):
                shift = rng.integers(0, 7)
                score = float(np.clip(0.9 - 0.1 * shift + rng.normal(0, 0.1), 0.01, 1))
                kind = category if rng.random() < 0.9 else "shsy5y"
                found.append(blob(rng, x + shift, y, side, kind, score))
        truth.append(Frame(str(number), None, *SIZE, tuple(cells), category))
        voted = voted_category((c.category, c.confidence) for c in found)
        predictions.append(Frame(str(number), None, *SIZE, tuple(found), voted))
    return truth, predictions


def slowly(truth, predictions, config):
    return metric.score(truth, [thresholds.apply(p, config) for p in predictions]).mean


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_curves_are_the_metric_of_the_post_processed_frames(seed):
    truth, predictions = held_out(seed)
    start = PostConfig(score_threshold={"default": 0.6}, min_area={"default": 60}, mask_nms={"default": 0.3})
    result = tune(truth, predictions, start)
    assert result.before == pytest.approx(slowly(truth, predictions, start), abs=1e-12)
    assert result.score == pytest.approx(slowly(truth, predictions, result.config), abs=1e-12)
    for i in range(0, len(SCORE_THRESHOLDS), 6):
        config = replace(result.config, score_threshold={"default": SCORE_THRESHOLDS[i]})
        assert result.curves["default"][i] == pytest.approx(slowly(truth, predictions, config), abs=1e-12)
        for name in ("astro", "cort"):
            # By the true type, whatever was predicted.
            pairs = [pair for pair in zip(truth, predictions, strict=True) if pair[0].category == name]
            expected = slowly(*map(list, zip(*pairs, strict=True)), config)
            assert result.curves[name][i] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_on_the_grid_is_more_than_a_whisker_better(seed):
    truth, predictions = held_out(seed)
    result = tune(truth, predictions)
    for score in SCORE_THRESHOLDS[::4]:
        for area in MIN_AREAS[::2]:
            config = replace(result.config, score_threshold={"default": score}, min_area={"default": area})
            assert slowly(truth, predictions, config) <= result.score * 1.02


def test_each_category_gets_its_own_threshold():
    """Good and bad cells part at 0.3 in one category and at 0.7 in the other."""
    rng = np.random.default_rng(1)
    truth, predictions = [], []
    for number, (category, border) in enumerate([("cort", 0.3), ("astro", 0.7)] * 3):
        cells = [blob(rng, x, y, 12, category) for x in range(0, 140, 20) for y in (0, 30)]
        good = [replace(c, score=border + 0.05 + 0.2 * rng.random()) for c in cells]
        bad = [blob(rng, x, 60, 12, category, border * rng.random()) for x in range(0, 140, 20)]
        truth.append(Frame(str(number), None, *SIZE, tuple(cells), category))
        predictions.append(Frame(str(number), None, *SIZE, tuple(good + bad), category))
    result = tune(truth, predictions)
    assert result.score == 1.0
    assert result.config.for_category("cort").score_threshold == pytest.approx(0.3, abs=0.06)
    assert result.config.for_category("astro").score_threshold == pytest.approx(0.7, abs=0.06)
    assert result.frames == {"default": 6, "astro": 3, "cort": 3}
    assert len(result.curves["astro"]) == len(result.thresholds)


def test_specks_are_removed_by_area():
    rng = np.random.default_rng(2)
    cells = [blob(rng, x, 0, 12, "cort") for x in range(0, 140, 20)]
    specks = [blob(rng, x, 60, 5, "cort", 0.95) for x in range(0, 140, 20)]
    found = [replace(c, score=0.9) for c in cells] + specks
    truth = [Frame("a", None, *SIZE, tuple(cells), "cort")]
    result = tune(truth, [Frame("a", None, *SIZE, tuple(found), "cort")])
    assert result.score == 1.0
    assert 20 < result.config.for_category("cort").min_area <= 100


def test_equally_good_settings_stay_as_they_are():
    rng = np.random.default_rng(3)
    cells = [blob(rng, x, 0, 12, "cort") for x in range(0, 140, 20)]
    truth = [Frame("a", None, *SIZE, tuple(cells), "cort")]
    result = tune(truth, [Frame("a", None, *SIZE, tuple(replace(c, score=0.9) for c in cells), "cort")])
    score = result.config.for_category("cort").score_threshold
    assert result.config.for_category("cort") == CategoryConfig(score_threshold=score, min_area=0)


def test_useless_predictions_leave_post_processing_as_it_was():
    rng = np.random.default_rng(4)
    truth = [Frame("a", None, *SIZE, (blob(rng, 0, 0, 12, "cort"),), "cort")]
    result = tune(truth, [Frame("a", None, *SIZE, (blob(rng, 80, 80, 12, "cort", 0.9),), "cort")])
    assert result.score == 0
    assert result.config == PostConfig()


def test_frames_without_predictions_count_as_zero():
    truth, predictions = held_out()
    assert tune(truth, predictions[:3]).score == pytest.approx(tune(truth[:3], predictions[:3]).score / 2)


def test_predictions_of_other_frames_are_refused():
    truth, predictions = held_out()
    with pytest.raises(KitError, match="no prediction has the id"):
        tune(truth, [replace(p, id=f"x{p.id}") for p in predictions])


@pytest.mark.parametrize(
    ("curve", "centre"),
    [
        ([0, 1, 0], 1),
        ([0.5, 0.996, 1.0, 0.995, 0.994, 0.5], 2),  # run 1 to 4
        ([1.0, 0.2, 1.0, 1.0, 1.0], 0),  # the first maximum's own run
        ([0.0, 0.0, 0.0], 1),
    ],
)
def test_plateau_centre(curve, centre):
    assert plateau_centre(np.array(curve), 0.01) == centre


def test_each_field_is_found_where_it_alone_helps():
    """Truth is squares of 12; the predictions differ from it in one way that one field corrects."""
    square = np.ones((12, 12), bool)
    holed, stray = square.copy(), np.zeros((12, 18), bool)
    holed[3:8, 3:8], stray[:, :12], stray[4:8, 14:] = False, True, True

    def tuned(*masks):
        places = [(x, y) for x in range(0, 140, 20) for y in (0, 40)]
        true = tuple(Cell(rle.from_crop(square, x, y, *SIZE), "cort") for x, y in places)
        found = tuple(
            Cell(rle.from_crop(mask, x, y, *SIZE), "cort", 0.9 - 0.03 * place - 0.01 * i)
            for place, (x, y) in enumerate(places)
            for i, mask in enumerate(masks)
        )
        frame = Frame("a", None, *SIZE, true, "cort")
        result = tune([frame], [replace(frame, cells=found)])
        assert result.score == 1
        return result.config.for_category("cort")

    assert tuned(holed).fill_holes
    assert tuned(stray).largest_only
    lower = np.pad(square, ((9, 0), (0, 0)))  # a quarter lies on the other: IoU 36 / 252
    assert tuned(square, lower).mask_nms == 0.05


@pytest.mark.parametrize("mask_thresholds", [(0.4,), (0.45, 0.4)])
def test_the_mask_threshold_found_is_one_that_there_was(mask_thresholds):
    """Masks are cut there again when the submission is made, so it may not be the usual one by default."""
    truth, predictions = held_out()
    config = tune(truth, dict.fromkeys(mask_thresholds, predictions)).config
    assert set(config.mask_threshold.values()) <= set(mask_thresholds)


def test_the_mask_threshold_that_fits():
    truth, predictions = held_out()
    exact = {f.id: f for f in truth}
    good = [replace(f, cells=tuple(replace(c, score=0.9) for c in exact[f.id].cells)) for f in truth]
    assert tune(truth, {0.5: predictions, 0.4: good}).config.for_category("cort").mask_threshold == 0.4
    assert tune(truth, {0.5: good, 0.4: predictions}).config.for_category("cort").mask_threshold == 0.5
