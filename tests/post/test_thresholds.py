"""Limits by category, the vote for a frame's category, and the cell that always stays."""

import numpy as np
import pytest

from kitlib import config, rle
from kitlib.errors import KitError
from kitlib.post.thresholds import PostConfig, apply, vote
from kitlib.records import Cell, Frame


def square(x, y, side, score, category="cort"):
    return Cell(rle.from_crop(np.ones((side, side), bool), x, y, 40, 60), category, score)


def frame(*cells):
    return Frame("a", None, 40, 60, cells)


def scores(result):
    return [c.score for c in result.cells]


def test_the_vote_weighs_certain_cells_more_than_many_faint_ones():
    faint = [square(2 * i, 20, 1, 0.1, "shsy5y") for i in range(20)]  # sum 2.0, of squares 0.2
    assert vote([square(0, 0, 5, 0.9, "cort"), *faint]) == "cort"
    assert (
        vote([square(0, 0, 5, 0.9, "cort"), square(9, 0, 5, 0.8, "astro"), square(20, 0, 5, 0.5, "astro")])
        == "astro"
    )


def test_the_vote_of_nothing_and_of_equals():
    assert vote([]) is None
    assert vote([square(0, 0, 5, 0.5, "shsy5y"), square(9, 0, 5, 0.5, "astro")]) == "astro"


def test_all_cells_are_held_to_the_limit_of_the_voted_category():
    limits = PostConfig(score={"cort": 0.5, "astro": 0.1, "default": 0.9}, min_area={"default": 0})
    cells = (
        square(0, 0, 5, 0.9),
        square(10, 0, 5, 0.5),
        square(20, 0, 5, 0.49),
        square(30, 0, 5, 0.2, "astro"),
    )
    result = apply(frame(*cells), limits)
    assert scores(result) == [0.9, 0.5]
    assert result.category == "cort"


@pytest.mark.parametrize(("category", "kept"), [("cort", 1), ("neuron", 2)])
def test_an_unknown_category_takes_the_default(category, kept):
    limits = PostConfig(score={"cort": 0.5, "default": 0.3}, min_area={"default": 0})
    cells = square(0, 0, 5, 0.9, category), square(10, 0, 5, 0.4, category)
    assert len(apply(frame(*cells), limits).cells) == kept


def test_area_is_checked_before_and_after_the_overlap():
    limits = PostConfig(min_area={"default": 24})
    speck, cell = square(0, 0, 2, 0.9), square(0, 0, 5, 0.8)
    assert scores(apply(frame(speck, cell), limits)) == [0.8]  # the speck clips nothing
    neighbour = square(4, 4, 5, 0.95)
    assert scores(apply(frame(neighbour, cell), limits)) == [0.95, 0.8]  # 24 pixels are left
    assert scores(apply(frame(neighbour, cell), PostConfig(min_area={"default": 25}))) == [0.95]


def test_the_best_cell_stays_where_none_passes():
    cells = square(0, 0, 3, 0.3), square(10, 0, 6, 0.2), square(20, 0, 6, 0.1)
    limits = PostConfig(min_area={"default": 20})
    assert scores(apply(frame(*cells), limits)) == [0.2]  # the best of those that are large enough
    assert scores(apply(frame(cells[0]), limits)) == [0.3]
    assert apply(frame(*cells), PostConfig(keep_best=False)).cells == ()
    assert apply(frame(), limits).cells == ()


def test_annotated_cells_pass_every_score():
    assert len(apply(frame(square(0, 0, 9, None)), PostConfig(score={"default": 0.99})).cells) == 1


def test_limits_are_kept_as_yaml(tmp_path):
    post = PostConfig(score={"cort": 0.45, "default": 0.5}, min_area={"default": 40}, split="keep_all")
    assert config.load(PostConfig, config.save(post, tmp_path / "thresholds.yaml")) == post
    with pytest.raises(KitError, match="did you mean 'keep_all'"):
        config.from_dict(PostConfig, {"split": "keepall"})
