"""Scores of instances: their kinds, their features worked out by hand, trees as scikit-learn has them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from kitlib import config
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.post.forest import from_sklearn, grow
from kitlib.post.scores import NAMES, choose, features, rescore, samples
from kitlib.records import Cell, Frame

SIZE = 40, 60


def cell(x, y, shape, score, mask_score=None, agreement=None, category="cort"):
    mask = np.ones(shape, bool) if isinstance(shape, tuple) else shape
    return Cell(rle.from_crop(mask, x, y, *SIZE), category, score, mask_score, agreement)


def frame(*cells):
    return Frame("a", None, *SIZE, cells, "cort")


PAIR = frame(cell(0, 0, (10, 10), 0.9, 0.5, 0.75), cell(20, 0, (10, 10), 0.6, 0.8))


@pytest.mark.parametrize(
    ("kind", "expected"), [("box", [0.9, 0.6]), ("mask", [0.5, 0.8]), ("product", [0.45, 0.48])]
)
def test_kinds_of_scores(kind, expected):
    assert [c.score for c in rescore(PAIR, kind).cells] == pytest.approx(expected)


def test_an_unknown_mask_score_and_an_annotated_cell():
    unknown, annotated = cell(0, 0, (5, 5), 0.7), cell(9, 0, (5, 5), None, 0.3)
    assert [c.score for c in rescore(frame(unknown, annotated), "product").cells] == [0.7, None]


def test_the_chosen_score_ranks_and_is_compared_with_the_threshold_of_the_type():
    post = PostConfig(score_threshold={"cort": 0.6, "default": 0}, score_kind="mask")
    assert [c.score for c in thresholds.apply(PAIR, post).cells] == [0.8]
    assert [c.score for c in thresholds.apply(replace(PAIR, category="astro"), post).cells] == [0.8, 0.5]


def test_a_learned_score_needs_its_trees():
    with pytest.raises(KitError, match="needs the trees"):
        rescore(PAIR, "learned")


def column(name, found):
    return features(found)[:, NAMES.index(name)]


def test_features_of_shape():
    triangle = np.tri(10, dtype=bool)  # 55 pixels; its hull with the steps' corners is 10 x 10 / 2 + 10 - 0.5
    found = frame(cell(0, 0, (4, 12), 0.9), cell(20, 0, triangle, 0.8), cell(50, 0, (1, 1), 0.7))
    assert np.exp(column("log_area", found)) - 1 == pytest.approx([48, 55, 1])
    assert column("elongation", found) == pytest.approx([3, 1, 1])
    assert column("extent", found) == pytest.approx([1, 0.55, 1])
    assert column("solidity", found) == pytest.approx([1, 55 / 59.5, 1])
    assert column("cells", found).tolist() == [3, 3, 3]
    assert column("agreement", found).tolist() == [1, 1, 1]


def test_features_of_neighbours():
    """The second lies on a fifth of the first: IoU 20 / 180; the third is alone."""
    found = frame(cell(0, 0, (10, 10), 0.9), cell(8, 0, (10, 10), 0.6), cell(40, 0, (10, 10), 0.3))
    assert column("overlapping", found).tolist() == [1, 1, 0]
    assert column("overlapping_better", found).tolist() == [0, 1, 0]
    assert column("best_iou", found) == pytest.approx([1 / 9, 1 / 9, 0])
    assert column("best_iou_better", found) == pytest.approx([0, 1 / 9, 0])
    assert column("score_near", found) == pytest.approx([0.6, 0.9, 0])


def test_features_of_empty_masks_and_of_no_cells():
    assert features(frame()).shape == (0, len(NAMES))
    assert np.isfinite(features(frame(cell(0, 0, np.zeros((3, 3), bool), 0.5)))).all()


@pytest.mark.parametrize(("number", "leaf"), [(30, 10), (2000, 5)])  # with so few, trees end early
def test_trees_are_those_of_scikit_learn(number, leaf):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, 6)).round(2)
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + rng.normal(0, 0.1, number)
    fit = GradientBoostingRegressor(
        n_estimators=40, max_depth=3, min_samples_leaf=leaf, subsample=0.5, random_state=0
    ).fit(x, y)
    forest = from_sklearn(float(y.mean()), [each.tree_ for each in fit.estimators_[:, 0]], 0.1)
    fresh = np.vstack([x, rng.normal(size=(500, 6))])
    np.testing.assert_allclose(forest.predict(fresh), fit.predict(fresh), rtol=0, atol=1e-9)


def test_trees_are_kept_as_plain_numbers(tmp_path):
    rng = np.random.default_rng(0)
    post = PostConfig(score_kind="learned", forest=grow(rng.random((200, 15)), rng.random(200)))
    assert config.load(PostConfig, config.save(post, tmp_path / "post.yaml")) == post


def test_what_is_learned_tells_good_masks_from_bad():
    """Good masks are whole squares of any score, bad ones half of them: only the shape tells."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for number in range(20):
        true = [cell(x, y, (8, 8), None) for x in range(0, 60, 12) for y in range(0, 36, 12)]
        half = rng.random(len(true)) < 0.5
        boxes = rle.boxes([c.mask for c in true])[:, :2].tolist()
        cells = [cell(*xy, (4, 8) if h else (8, 8), rng.random()) for xy, h in zip(boxes, half, strict=True)]
        truth.append(replace(frame(*true), id=str(number)))
        found.append(replace(frame(*cells), id=str(number)))
    forest = grow(*choose(list(map(samples, truth[:10], found[:10]))))
    for judged in found[10:]:
        scores = np.array([c.score for c in rescore(judged, "learned", forest).cells])
        whole = rle.areas([c.mask for c in judged.cells]) == 64
        assert scores[whole] == pytest.approx(1, abs=0.1)
        assert scores[~whole] == pytest.approx(0.5, abs=0.1)
