"""Limits by category, the vote for a frame's category, and the cell that always stays."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import config
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import NAMES, Limits, PostConfig, tables
from kitlib.post.thresholds import apply, apply_each, vote
from kitlib.records import Cell, Frame


def square(x, y, side, score, category="cort"):
    return Cell(rle.from_crop(np.ones((side, side), bool), x, y, 40, 60), category, score)


def frame(*cells):
    return Frame("a", None, 40, 60, cells)


def drawn(*rows, score=0.9, category="cort"):
    """A cell as drawn: one text a row, ``#`` inside."""
    return Cell(rle.from_crop(np.array([[c == "#" for c in r] for r in rows]), 5, 5, 40, 60), category, score)


def areas(result):
    return rle.areas([c.mask for c in result.cells]).tolist()


def scores(result):
    return [c.score for c in result.cells]


def test_each_cell_votes_with_its_score():
    faint = [square(2 * i, 20, 1, 0.1, "shsy5y") for i in range(20)]
    assert vote([square(0, 0, 5, 0.9, "cort"), *faint[:8]]) == "cort"  # 0.9 to 0.8
    assert vote([square(0, 0, 5, 0.9, "cort"), *faint[:10]]) == "shsy5y"  # 0.9 to 1.0
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
    post = PostConfig(
        score={"cort": 0.45, "default": 0.5}, min_area={"default": 40}, split={"default": "keep_all"}
    )
    assert config.load(PostConfig, config.save(post, tmp_path / "post.yaml")) == post
    with pytest.raises(KitError, match="did you mean 'keep_all'"):
        config.from_dict(PostConfig, {"split": {"cort": "keepall"}})


def test_limits_by_type_and_back():
    chosen = {"default": Limits(), "cort": Limits(score=0.3, max_area=900), "astro": Limits(mask_nms=0.1)}
    post = PostConfig(**tables(chosen))
    assert {name: post.limits(name) for name in ("cort", "astro")} == {
        k: chosen[k] for k in ("cort", "astro")
    }
    assert post.limits("shsy5y") == post.limits(None) == Limits()
    assert post.split == {"default": "keep_largest"}  # on which all agree
    assert PostConfig(score={"cort": 0.1}).limits("astro") == Limits()


def test_a_cell_may_be_too_large():
    cells = square(0, 0, 9, 0.9), square(10, 0, 6, 0.8)
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 80}))) == [36]
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 81}))) == [81, 36]
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 10}))) == [81]  # the best stays


RING = drawn("####", "#  #", "#  #", "####")
PARTS = drawn("####  #", "####  #", "####   ")


@pytest.mark.parametrize(
    ("cell", "limits", "expected"),
    [
        (RING, {}, 12),
        (RING, {"fill_holes": {"cort": True}}, 16),
        (RING, {"fill_holes": {"astro": True}}, 12),  # the frame is of another type
        (PARTS, {}, 14),
        (PARTS, {"largest_only": {"cort": True}}, 12),
    ],
)
def test_masks_are_mended_by_type(cell, limits, expected):
    assert areas(apply(frame(cell), PostConfig(min_area={"default": 0}, **limits))) == [expected]


def test_a_filled_hole_is_taken_from_what_lies_in_it():
    inside = Cell(rle.from_crop(np.ones((2, 2), bool), 6, 6, 40, 60), "cort", 0.8)
    config = PostConfig(min_area={"default": 0})
    assert areas(apply(frame(RING, inside), config)) == [12, 4]
    assert areas(apply(frame(RING, inside), replace(config, fill_holes={"default": True}))) == [16]


def test_overlap_by_type():
    config = PostConfig(mask_nms={"cort": 0.1}, max_clipped={"default": 1.0})
    pair = [(0, 0, 9, 0.9), (6, 0, 9, 0.8)]  # IoU 27 / 135
    assert scores(apply(frame(*(square(*p) for p in pair)), config)) == [0.9]
    assert scores(apply(frame(*(square(*p, "astro") for p in pair)), config)) == [0.9, 0.8]


@st.composite
def crowds(draw):
    """Cells of ragged masks, empty ones among them, and limits of any kind."""
    number = draw(st.integers(0, 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    cells = []
    for _ in range(number):
        height, width = rng.integers(1, 20, 2)
        mask = rng.random((height, width)) < rng.choice([0, 0.7, 1])
        x, y = int(rng.integers(0, 58)), int(rng.integers(0, 38))
        category = str(rng.choice(["cort", "astro"]))
        cells.append(Cell(rle.from_crop(mask, x, y, 40, 60), category, float(rng.choice([0.3, 0.6, 0.9]))))
    limits = Limits(
        score=draw(st.sampled_from([0.0, 0.5])),
        min_area=draw(st.sampled_from([0, 10, 50])),
        max_area=draw(st.sampled_from([None, 80])),
        mask_nms=draw(st.sampled_from([1.0, 0.2])),
        max_clipped=draw(st.sampled_from([0.0, 0.3, 1.0])),
        split=draw(st.sampled_from(["keep_largest", "drop", "keep_all"])),
        fill_holes=draw(st.booleans()),
        largest_only=draw(st.booleans()),
    )
    return frame(*cells), limits


@given(crowds())
def test_no_pixel_has_two_owners_and_the_limits_hold(crowd):
    given_frame, limits = crowd
    config = PostConfig(**tables({"default": limits}), keep_best=False)
    cells = apply(given_frame, config).cells
    owners = sum((rle.to_mask(c.mask).astype(int) for c in cells), np.zeros((40, 60), int))
    assert owners.max() <= 1
    for cell, area in zip(cells, rle.areas([c.mask for c in cells]), strict=True):
        assert cell.score >= limits.score
        assert max(limits.min_area, 1) <= area <= (limits.max_area or 2400)


@given(crowds())
def test_something_is_left_of_whatever_was_found(crowd):
    given_frame, limits = crowd
    cells = apply(given_frame, PostConfig(**tables({"default": limits}))).cells
    assert bool(cells) == any(rle.areas([c.mask for c in given_frame.cells]))


def test_every_limit_is_by_type():
    assert set(NAMES) == {f.name for f in fields(PostConfig)} - {"keep_best", "gain", "score_kind", "forest"}


def test_a_frame_that_cannot_be_post_processed_costs_only_itself():
    broken = replace(square(0, 0, 5, 0.9), mask=None)
    told = []
    done = apply_each(
        [frame(square(0, 0, 5, 0.9)), frame(broken), frame(square(9, 9, 5, 0.9))], PostConfig(), told.append
    )
    assert [len(f.cells) for f in done] == [1, 0, 1]
    assert len(told) == 1
    assert told[0].startswith("a is left empty: ")
