"""Cross-validation: what judges has no part in the tuning, and the best method is the one that is kept."""

from dataclasses import replace

import numpy as np
import pytest

from kitlib import config, metric
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import Tuned
from kitlib.post.tuning import shares
from kitlib.post.tuning.cross_validation import cross_validate
from kitlib.records import Cell, Frame

SIZE = (80, 120)


def held_out(frames=9, seed=0):
    """Squares, and predictions moved by up to 5 pixels; the mask score tells, the box score does not."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], []
    for number in range(frames):
        category, true, found = ("cort", "astro", "own")[number % 3], [], []
        for x in range(0, 100, 20):
            for y in range(0, 60, 20):
                true.append(Cell(rle.from_crop(np.ones((12, 12), bool), x, y, *SIZE), category))
                for shift in rng.integers(0, 6, 2).tolist():
                    mask = rle.from_crop(np.ones((12, 12), bool), x + shift, y, *SIZE)
                    good = np.clip(0.95 - 0.12 * shift + rng.normal(0, 0.05), 0, 1)
                    found.append(Cell(mask, category, float(rng.uniform(0.4, 0.9)), float(good)))
        truth.append(Frame(str(number), None, *SIZE, tuple(true), category))
        predictions.append(replace(truth[-1], cells=tuple(found)))
    return truth, predictions


@pytest.fixture(scope="module")
def validation():
    return cross_validate(*held_out(), folds=3)


def test_a_row_for_each_way_with_its_interval(validation):
    assert [row.name for row in validation.rows] == [
        "untuned",
        *(
            f"{method}, {kind} score"
            for kind in ("box", "mask", "product", "learned")
            for method in ("one threshold for all types", "thresholds by type", "expected gain")
        ),
    ]
    for row in validation.rows:
        assert row.low <= row.mean <= row.high
        assert set(row.by_category) == {"astro", "cort", "own"}
        assert np.mean(list(row.by_category.values())) == pytest.approx(row.mean)  # types are equally many


def test_processes_that_share_the_frames_find_the_same(validation, monkeypatch):
    monkeypatch.setattr(shares, "_INSTANCES", 50)
    monkeypatch.setattr(shares.launch, "cores", lambda: 2)
    assert cross_validate(*held_out(), folds=3) == validation


def test_the_best_way_is_the_one_kept(validation):
    means = {row.name: row.mean for row in validation.rows}
    assert validation.best.mean == max(means.values())
    assert means["thresholds by type, mask score"] > means["thresholds by type, box score"] + 0.05
    assert validation.tuned.post.score_kind in validation.best.name
    assert bool(validation.tuned.post.calibrations) == validation.best.name.startswith("expected gain")
    assert metric.score(held_out()[0], validation.frames).mean == validation.best.mean
    assert (validation.tuned.expected, validation.tuned.low) == (validation.best.mean, validation.best.low)


def test_the_untuned_row_is_the_default_s_metric(validation):
    truth, predictions = held_out()
    final = [thresholds.apply(f, thresholds.PostConfig()) for f in predictions]
    assert validation.rows[0].mean == metric.score(truth, final).mean


def test_what_is_kept_says_all(validation, tmp_path):
    again = config.load(Tuned, config.save(validation.tuned, tmp_path / "post.yaml"))
    assert again == validation.tuned
    frame = held_out(seed=1)[1][0]
    assert thresholds.apply(frame, again.post) == thresholds.apply(frame, validation.tuned.post)


@pytest.mark.parametrize("kind", ["box", "learned"])
def test_the_judged_image_has_no_part(kind):
    """The truth of one image is made nonsense: its predictions come out the same to the bit."""
    truth, predictions = held_out()
    other = [replace(truth[0], cells=truth[0].cells[:1]), *truth[1:]]
    methods = [cross_validate(t, predictions, folds=3, kinds=[kind]) for t in (truth, other)]
    gains = {bool(w.tuned.post.calibrations) for w in methods}
    assert len(gains) == 1, "the same method has to be the best of both for this test to say anything"
    first, second = ({f.id: f for f in w.frames}[truth[0].id] for w in methods)
    assert first == second


@pytest.mark.parametrize("method", ["score threshold", "one threshold for all types", "expected gain"])
def test_one_method_alone_may_be_asked_for(method):
    found = cross_validate(*held_out(), folds=3, kinds=["box"], methods=[method])
    assert [r.name for r in found.rows] == ["untuned", f"{method}, box score"]
    assert found.best.name == f"{method}, box score"
    assert bool(found.tuned.post.calibrations) == (method == "expected gain")


def test_the_score_threshold_alone_leaves_masks_as_they_are():
    """Two specks of 4 pixels at 0.8 and more, a third at 0.8 of which the first took most, and nonsense at
    0.4: any threshold above 0.4 and up to 0.8 is as good, and 0.6 is in the middle."""

    def cell(x, width, score):
        return Cell(rle.from_crop(np.ones((2, width), bool), x, 10, *SIZE), "cort", score)

    found = (cell(0, 2, 0.9), cell(20, 2, 0.8), cell(0, 3, 0.8), *(cell(x, 9, 0.4) for x in (40, 60, 80)))
    true = (cell(0, 2, None), cell(20, 2, None), cell(2, 1, None))
    truth = [Frame(str(n), None, *SIZE, true, "cort") for n in range(4)]
    predictions = [replace(f, cells=found) for f in truth]
    methods = ["score threshold", "thresholds by type"]
    alone = cross_validate(truth, predictions, folds=2, kinds=["box"], methods=methods[:1])
    of_cort = alone.tuned.post.for_category("cort")
    assert of_cort == thresholds.PostConfig(
        score_threshold={"default": 0.6},
        min_area={"default": 1},
        max_clipped={"default": 1.0},
        split={"default": "keep_all"},
    ).for_category("cort")
    assert alone.best.mean == 1.0
    assert {name: curve[0] for name, curve in alone.tuning.curves.items()} == {"default": 0.5, "cort": 0.5}
    both = {
        r.name: r.mean for r in cross_validate(truth, predictions, 2, kinds=["box"], methods=methods).rows
    }
    assert both["score threshold, box score"] == 1.0


def test_of_a_single_image_the_score_threshold_alone_is_tuned_too():
    validation = cross_validate(*held_out(frames=1), methods=["score threshold"])
    assert validation.best.name == "score threshold, tuned on these images"
    assert validation.tuned.post.for_category(None).min_area == 1


def test_the_order_of_the_frames_tells_nothing():
    truth, predictions = held_out()
    one = cross_validate(truth, predictions, 3, kinds=["mask"])
    other = cross_validate(truth[::-1], predictions[::-1], 3, kinds=["mask"])
    assert {r.name: r.mean for r in one.rows} == pytest.approx({r.name: r.mean for r in other.rows})


def test_frames_without_predictions_and_levels():
    truth, predictions = held_out(6)
    half = {0.5: predictions[:3], 0.4: predictions[:3]}
    found = cross_validate(truth, half, folds=3)
    assert [f.id for f in found.frames] == [f.id for f in truth]
    assert sum(len(f.cells) > 0 for f in found.frames) == 3


def test_images_without_cells_may_stay_without():
    """Of the competition's every image has cells, and a wrong guess there costs nothing."""
    truth, found = held_out(frames=6)
    weak = replace(found[0].cells[0], score=0.06)
    bare = [Frame(f"empty{i}", None, *SIZE) for i in range(6)]
    guesses = [replace(f, cells=(weak,)) for f in bare]
    assert cross_validate(truth, found, folds=3, kinds=["box"]).tuned.post.keep_best
    mixed = cross_validate(truth + bare, found + guesses, folds=3, kinds=["box"])
    assert not mixed.tuned.post.keep_best
    assert metric.score(bare, [f for f in mixed.frames if f.id.startswith("empty")]).mean == 1


def test_two_frames_are_enough():
    truth, predictions = held_out(2)
    rows = {row.name: row.mean for row in cross_validate(truth, predictions).rows}
    assert rows["thresholds by type, mask score"] > 0.2


def test_too_few_frames_and_predictions_of_others():
    truth, predictions = held_out(3)
    with pytest.raises(KitError, match="no prediction has the id"):
        cross_validate([], [])
    with pytest.raises(KitError, match="no prediction has the id"):
        cross_validate(truth, [replace(f, id=f"x{f.id}") for f in predictions])


def test_a_single_image_is_judged_with_its_own_limits_and_said_to_be():
    truth, predictions = held_out(frames=1)
    validation = cross_validate(truth, predictions)
    assert [row.name for row in validation.rows] == ["untuned", "thresholds by type, tuned on these images"]
    assert validation.best is validation.rows[-1]
    assert metric.score(truth, validation.frames).mean == pytest.approx(validation.tuned.expected)
    again = [thresholds.apply(f, validation.tuned.post) for f in predictions]
    assert metric.score(truth, again).mean == pytest.approx(validation.tuned.expected)
