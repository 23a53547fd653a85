"""Tables of several mask thresholds: one tells the type, the type's limits which one has the masks."""

from dataclasses import replace

import numpy as np
import pytest

from kitlib.masks import rle
from kitlib.post.config import PostConfig
from kitlib.post.thresholds import by_level, nearest, pick
from kitlib.records import Cell, Frame


def frame(name, category, side):
    mask = rle.from_crop(np.ones((side, side), bool), 0, 0, 20, 20)
    return Frame(name, None, 20, 20, (Cell(mask, category, 0.9),))


TABLES = {
    level: [frame("a", "cort", side), frame("b", "astro", side)]
    for level, side in ((0.4, 6), (0.5, 5), (0.6, 4))
}


def found(name, tables=TABLES):
    return {level: frames[name] for level, frames in by_level(tables).items()}


@pytest.mark.parametrize("level", [0.4, 0.5, 0.6])
def test_each_frame_is_taken_at_its_type_s_threshold(level):
    config = PostConfig(mask_threshold={"cort": level, "default": 0.41})
    assert pick(found("a"), config) == {f.id: f for f in TABLES[level]}["a"]
    assert pick(found("b"), config) == TABLES[0.4][1]


def test_the_usual_threshold_votes():
    other = {**TABLES, 0.4: [replace(f, cells=()) for f in TABLES[0.4]]}
    assert list(by_level(other)) == [0.5, 0.4, 0.6]
    assert pick(found("a", other), PostConfig(mask_threshold={"cort": 0.6})) == TABLES[0.6][0]


def test_a_single_table_is_taken_whatever_the_threshold():
    config = PostConfig(mask_threshold={"default": 0.3})
    assert pick(found("a", TABLES[0.5]), config) == TABLES[0.5][0]
    assert nearest([0.5], 0.1) == 0.5
