"""Writing a submission."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import metric
from kitlib.data import competition
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame
from kitlib.submission import checker, writer

SIZE = (12, 17)


def cell(x, y, w, h, score=0.9):
    return Cell(rle.from_crop(np.ones((h, w), bool), x, y, *SIZE), "cort", score)


def frame(name, *cells):
    return Frame(name, None, *SIZE, cells)


TEST = [frame("a"), frame("b")]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().tolist()


def test_rows_come_in_the_order_of_the_ids_and_of_the_cells(tmp_path):
    frames = [frame("b", cell(1, 0, 2, 2), cell(0, 0, 1, 1)), frame("a", cell(0, 0, 17, 12))]
    path = writer.write(tmp_path / "submission.csv", frames, [frame(n) for n in ("a", "0012", "b")])
    assert path.read_text().splitlines()[0] == "id,predicted"
    assert read(path) == [["a", "1 204"], ["0012", ""], ["b", "2 2 19 2"], ["b", "1 1"]]


def test_a_frame_without_pixels_gets_an_empty_row(tmp_path):
    path = writer.write(tmp_path / "s.csv", [frame("a"), frame("b", cell(30, 30, 2, 2))], TEST)
    assert read(path) == [["a", ""], ["b", ""]]


def test_a_cell_with_two_prongs_is_not_taken_for_one_numbered_down_the_columns(tmp_path):
    """From one prong to the other it is as far as a column is high."""
    prongs = np.zeros((30, 60), bool)
    prongs[:, :4] = prongs[:, 48:52] = True
    prongs[-2:, :52] = True
    image = Frame("a", None, 48, 96, (Cell(rle.from_crop(prongs, 5, 5, 48, 96), "cort", 0.9),))
    path = writer.write(tmp_path / "s.csv", [image], [image])
    assert len(read(path)) == 1
    assert "down the columns" in checker.check(path, [image])[0]  # a look at the text alone cannot know


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([frame("a", cell(0, 0, 3, 3), cell(2, 2, 3, 3))], "cells of image a overlap"),
        ([frame("z")], "image z is not a test image"),
        ([frame("a"), frame("a")], "image a has predictions twice"),
    ],
)
def test_what_kaggle_would_reject_is_not_written(tmp_path, frames, message):
    path = tmp_path / "submission.csv"
    path.write_text("before")
    with pytest.raises(KitError, match=message):
        writer.write(path, frames, TEST)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_mask_of_another_size_than_the_image_is_not_written(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("before")
    beyond = Frame(
        "a", None, 20, 30, (Cell(rle.from_crop(np.ones((4, 4), bool), 25, 15, 20, 30), "cort", 0.9),)
    )
    with pytest.raises(KitError, match=r"was not written: row 2: "):
        writer.write(path, [beyond], TEST)
    assert path.read_text() == "before"


boxes = st.tuples(
    st.integers(0, 16), st.integers(0, 11), st.integers(1, 17), st.integers(1, 12), st.floats(0, 1)
)


@given(st.lists(st.lists(boxes, max_size=6), min_size=1, max_size=4))
def test_whatever_is_predicted_the_checker_accepts_the_post_processed(tmp_path_factory, predicted):
    test = [frame(str(i)) for i in range(len(predicted))]
    config = PostConfig(
        score_threshold={"default": 0.3}, min_area={"default": 2}, max_clipped={"default": 0.6}
    )
    frames = [
        thresholds.apply(frame(str(i), *(cell(*box) for box in found)), config)
        for i, found in enumerate(predicted)
    ]
    path = writer.write(tmp_path_factory.mktemp("s") / "s.csv", frames, test)
    assert writer.check(path, test) == []
    assert all(f.cells for f, found in zip(frames, predicted, strict=True) if found)


@pytest.mark.slow
def test_real_cells_survive_the_loss_of_overlap(tmp_path, real_competition):
    """Annotations overlap, a submission may not: that alone costs a few hundredths of the metric."""
    truth, rng = competition.labelled(real_competition), np.random.default_rng(0)
    predicted = [
        replace(f, cells=tuple(replace(c, score=rng.uniform(0.5, 1)) for c in f.cells)) for f in truth
    ]
    final = [thresholds.apply(f, PostConfig()) for f in predicted]
    assert metric.score(truth, final).mean > 0.93
    path = writer.write(tmp_path / "s.csv", final, truth)
    assert writer.check(path, truth) == []
