"""Post-processing by type, and the cell that always stays."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import config
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import NAMES, CategoryConfig, PostConfig, Tuned, tables
from kitlib.post.thresholds import apply, apply_each, at_mask_threshold, by_mask_threshold, nearest
from kitlib.records import Cell, Frame, voted_category


def square(x, y, side, score, category="cort"):
    return Cell(rle.from_crop(np.ones((side, side), bool), x, y, 40, 60), category, score)


def frame(*cells):
    category = voted_category((c.category, c.confidence) for c in cells)
    return Frame("a", None, 40, 60, cells, category)


def drawn(*rows, score=0.9, category="cort"):
    """A cell as drawn: one text a row, ``#`` inside."""
    return Cell(rle.from_crop(np.array([[c == "#" for c in r] for r in rows]), 5, 5, 40, 60), category, score)


def areas(result):
    return rle.areas([c.mask for c in result.cells]).tolist()


def scores(result):
    return [c.score for c in result.cells]


def test_all_cells_need_the_score_of_the_frame_s_type():
    config = PostConfig(score_threshold={"cort": 0.5, "astro": 0.1, "default": 0.9}, min_area={"default": 0})
    cells = (
        square(0, 0, 5, 0.9),
        square(10, 0, 5, 0.5),
        square(20, 0, 5, 0.49),
        square(30, 0, 5, 0.2, "astro"),
    )
    result = apply(frame(*cells), config)
    assert scores(result) == [0.9, 0.5]
    assert result.category == "cort"


@pytest.mark.parametrize(("category", "kept"), [("cort", 1), ("neuron", 2)])
def test_an_unknown_category_takes_the_default(category, kept):
    config = PostConfig(score_threshold={"cort": 0.5, "default": 0.3}, min_area={"default": 0})
    cells = square(0, 0, 5, 0.9, category), square(10, 0, 5, 0.4, category)
    assert len(apply(frame(*cells), config).cells) == kept


def test_area_is_checked_before_and_after_the_overlap():
    config = PostConfig(min_area={"default": 24})
    speck, cell = square(0, 0, 2, 0.9), square(0, 0, 5, 0.8)
    assert scores(apply(frame(speck, cell), config)) == [0.8]  # the speck clips nothing
    neighbour = square(4, 4, 5, 0.95)
    assert scores(apply(frame(neighbour, cell), config)) == [0.95, 0.8]  # 24 pixels are left
    assert scores(apply(frame(neighbour, cell), PostConfig(min_area={"default": 25}))) == [0.95]


def test_the_best_cell_stays_where_none_passes():
    cells = square(0, 0, 3, 0.3), square(10, 0, 6, 0.2), square(20, 0, 6, 0.1)
    config = PostConfig(min_area={"default": 20})
    assert scores(apply(frame(*cells), config)) == [0.2]  # the best of those that are large enough
    assert scores(apply(frame(cells[0]), config)) == [0.3]
    assert apply(frame(*cells), PostConfig(keep_best=False)).cells == ()
    assert apply(frame(), config).cells == ()


def test_annotated_cells_pass_every_score():
    assert len(apply(frame(square(0, 0, 9, None)), PostConfig(score_threshold={"default": 0.99})).cells) == 1


def test_post_processing_as_yaml(tmp_path):
    post = PostConfig(
        score_threshold={"cort": 0.45, "default": 0.5},
        min_area={"default": 40},
        split={"default": "keep_all"},
    )
    assert config.load(PostConfig, config.save(post, tmp_path / "post.yaml")) == post
    with pytest.raises(KitError, match="did you mean 'keep_all'"):
        config.from_dict(PostConfig, {"split": {"cort": "keepall"}})


@pytest.mark.parametrize(
    ("key", "value", "name"), [("score", {"default": 0.6}, "score_threshold"), ("gain", {}, "calibrations")]
)
def test_a_former_key_is_refused_with_its_new_name(tmp_path, key, value, name):
    path = tmp_path / "post.yaml"
    path.write_text(config.format_yaml({"post": {key: value}, "expected": 0.3, "low": 0.2, "high": 0.4}))
    with pytest.raises(
        KitError, match=f"post.yaml.post.{key} is now '{name}'; rename it there, or run the stage"
    ):
        config.load(Tuned, path)


def test_the_type_is_the_frame_s_whatever_its_cells_are_of():
    found = frame(square(0, 0, 5, 0.6), square(10, 0, 5, 0.6))
    post = PostConfig(score_threshold={"astro": 0.7, "default": 0.5}, keep_best=False)
    assert len(apply(found, post).cells) == 2
    assert apply(replace(found, category="astro"), post) == replace(found, cells=(), category="astro")


def test_configurations_by_type_and_back():
    chosen = {
        "default": CategoryConfig(),
        "cort": CategoryConfig(score_threshold=0.3, max_area=900),
        "astro": CategoryConfig(mask_nms=0.1),
    }
    post = PostConfig(**tables(chosen))
    assert {name: post.for_category(name) for name in ("cort", "astro")} == {
        k: chosen[k] for k in ("cort", "astro")
    }
    assert post.for_category("shsy5y") == post.for_category(None) == CategoryConfig()
    assert post.split == {"default": "keep_largest"}  # on which all agree
    assert PostConfig(score_threshold={"cort": 0.1}).for_category("astro") == CategoryConfig()


def test_a_cell_may_be_too_large():
    cells = square(0, 0, 9, 0.9), square(10, 0, 6, 0.8)
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 80}))) == [36]
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 81}))) == [81, 36]
    assert areas(apply(frame(*cells), PostConfig(max_area={"default": 10}))) == [81]  # the best stays


RING = drawn("####", "#  #", "#  #", "####")
PARTS = drawn("####  #", "####  #", "####   ")


@pytest.mark.parametrize(
    ("cell", "settings", "expected"),
    [
        (RING, {}, 12),
        (RING, {"fill_holes": {"cort": True}}, 16),
        (RING, {"fill_holes": {"astro": True}}, 12),  # the frame is of another type
        (PARTS, {}, 14),
        (PARTS, {"largest_only": {"cort": True}}, 12),
    ],
)
def test_masks_are_cleaned_by_type(cell, settings, expected):
    assert areas(apply(frame(cell), PostConfig(min_area={"default": 0}, **settings))) == [expected]


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
    """Cells of ragged masks, empty ones among them, and any post-processing."""
    number = draw(st.integers(0, 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    cells = []
    for _ in range(number):
        height, width = rng.integers(1, 20, 2)
        mask = rng.random((height, width)) < rng.choice([0, 0.7, 1])
        x, y = int(rng.integers(0, 58)), int(rng.integers(0, 38))
        category = str(rng.choice(["cort", "astro"]))
        cells.append(Cell(rle.from_crop(mask, x, y, 40, 60), category, float(rng.choice([0.3, 0.6, 0.9]))))
    config = CategoryConfig(
        score_threshold=draw(st.sampled_from([0.0, 0.5])),
        min_area=draw(st.sampled_from([0, 10, 50])),
        max_area=draw(st.sampled_from([None, 80])),
        mask_nms=draw(st.sampled_from([1.0, 0.2])),
        max_clipped=draw(st.sampled_from([0.0, 0.3, 1.0])),
        split=draw(st.sampled_from(["keep_largest", "drop", "keep_all"])),
        fill_holes=draw(st.booleans()),
        largest_only=draw(st.booleans()),
    )
    return frame(*cells), config


@given(crowds())
def test_no_pixel_has_two_owners_and_scores_and_areas_are_as_asked(crowd):
    given_frame, of_type = crowd
    config = PostConfig(**tables({"default": of_type}), keep_best=False)
    cells = apply(given_frame, config).cells
    owners = sum((rle.to_mask(c.mask).astype(int) for c in cells), np.zeros((40, 60), int))
    assert owners.max() <= 1
    for cell, area in zip(cells, rle.areas([c.mask for c in cells]), strict=True):
        assert cell.score >= of_type.score_threshold
        assert max(of_type.min_area, 1) <= area <= (of_type.max_area or 2400)


@given(crowds())
def test_something_is_left_of_whatever_was_found(crowd):
    given_frame, of_type = crowd
    cells = apply(given_frame, PostConfig(**tables({"default": of_type}))).cells
    assert bool(cells) == any(rle.areas([c.mask for c in given_frame.cells]))


def test_every_field_is_by_type():
    assert set(NAMES) == {f.name for f in fields(PostConfig)} - {
        *("keep_best", "calibrations", "score_kind", "forest")
    }


def test_a_frame_that_cannot_be_post_processed_costs_only_itself():
    broken = replace(square(0, 0, 5, 0.9), mask=None)
    notes = []
    done = apply_each(
        [frame(square(0, 0, 5, 0.9)), frame(broken), frame(square(9, 9, 5, 0.9))], PostConfig(), notes.append
    )
    assert [len(f.cells) for f in done] == [1, 0, 1]
    assert len(notes) == 1
    assert notes[0].startswith("a is left empty: ")


# ----------------------------------------------------------------------------- several mask thresholds


def of_side(name, category, side):
    return Frame(name, None, 40, 60, (square(0, 0, side, 0.9, category),), category)


TABLES = {
    threshold: [of_side("a", "cort", side), of_side("b", "astro", side)]
    for threshold, side in ((0.4, 6), (0.5, 5), (0.6, 4))
}


def predicted(name, tables=TABLES):
    return {threshold: frames[name] for threshold, frames in by_mask_threshold(tables).items()}


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_each_frame_is_taken_at_its_type_s_threshold(threshold):
    config = PostConfig(mask_threshold={"cort": threshold, "default": 0.41})
    assert at_mask_threshold(predicted("a"), config) == {f.id: f for f in TABLES[threshold]}["a"]
    assert at_mask_threshold(predicted("b"), config) == TABLES[0.4][1]


def test_the_usual_threshold_comes_first():
    assert list(by_mask_threshold(TABLES)) == [0.5, 0.4, 0.6]


def test_a_single_table_is_taken_whatever_the_threshold():
    config = PostConfig(mask_threshold={"default": 0.3})
    assert at_mask_threshold(predicted("a", TABLES[0.5]), config) == TABLES[0.5][0]
    assert nearest([0.5], 0.1) == 0.5
