"""Pseudo labels: what is kept, what is dropped, and the reason that is reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kitlib import rle
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.post.thresholds import PostConfig
from kitlib.predict import pseudo
from kitlib.predict.pseudo import PseudoConfig, select
from kitlib.records import Cell, Frame

CONFIG = PseudoConfig(
    post=PostConfig(score={"cort": 0.6, "default": 0.8}, min_area={"default": 10}), min_cells=2, weight=0.5
)


def cell(x, score, category="cort", side=5):
    return Cell(rle.from_crop(np.ones((side, side), bool), x, 0, 40, 60), category, score)


def image(name, category="cort"):
    return Frame(name, Path(f"{name}.png"), 40, 60, category=category, group="plate")


def found(name, *cells):
    return Frame(name, None, 40, 60, cells, "astro")


def test_confident_cells_become_a_training_frame():
    doubtful, speck = cell(20, 0.5), cell(30, 0.99, side=3)
    frames, report = select([image("a")], [found("a", cell(0, 0.7), doubtful, cell(10, 0.9), speck)], CONFIG)
    (frame,) = frames
    assert [c.score for c in frame.cells] == [0.9, 0.7]
    assert (frame.path, frame.group, frame.category, frame.weight) == (Path("a.png"), "plate", "cort", 0.5)
    assert frame.pseudo
    assert (report.kept, report.doubtful, report.relabelled) == (("a",), 2, 0)
    assert (report.cells, report.images) == ({"cort": 2}, {"cort": 1})


def test_every_image_is_either_kept_or_dropped_for_one_reason():
    images = [image("good"), image("few"), image("empty"), image("absent"), image("other", "astro")]
    predictions = [
        found("other", cell(0, 0.9), cell(10, 0.9)),
        found("few", cell(0, 0.9)),
        found("good", cell(0, 0.9), cell(10, 0.9)),
        found("empty"),
    ]
    frames, report = select(images, predictions, CONFIG)
    assert [f.id for f in frames] == ["good"]
    assert report.dropped == {
        pseudo.NOTHING_FOUND: ("empty", "absent"),
        pseudo.OTHER_CATEGORY: ("other",),
        pseudo.TOO_FEW: ("few",),
    }


def test_a_minority_of_another_type_is_relabelled():
    cells = cell(0, 0.9), cell(10, 0.9), cell(20, 0.7, "astro")
    (frame,), report = select([image("a")], [found("a", *cells)], CONFIG)
    assert [c.category for c in frame.cells] == ["cort"] * 3
    assert report.relabelled == 1


@pytest.mark.parametrize(("category", "kept"), [("cort", 1), ("astro", 0)])
def test_without_a_type_in_the_name_the_vote_decides_which_limit_holds(category, kept):
    cells = cell(0, 0.7, category), cell(10, 0.7, category)
    frames, _ = select([image("a", None)], [found("a", *cells)], CONFIG)
    assert [f.category for f in frames] == [category] * kept


def test_an_image_without_confident_cells_is_never_kept():
    frames, report = select([image("a")], [found("a", cell(0, 0.3))], replace(CONFIG, min_cells=0))
    assert frames == []
    assert report.dropped[pseudo.TOO_FEW] == ("a",)


def test_cells_do_not_overlap():
    (frame,), _ = select([image("a")], [found("a", cell(0, 0.9), cell(4, 0.8), cell(20, 0.7))], CONFIG)
    assert rle.areas([c.mask for c in frame.cells]).tolist() == [25, 20, 25]


def test_predictions_of_unknown_images_are_refused():
    with pytest.raises(KitError, match="predictions for 'z'"):
        select([image("a")], [found("z")], CONFIG)


def test_the_frames_can_be_written_in_the_competition_s_format(tmp_path):
    frames, _ = select([image("a")], [found("a", cell(0, 0.9), cell(10, 0.7))], CONFIG)
    tables.write_annotations(tmp_path / "train.csv", frames)
    (back,) = tables.read_cells(tmp_path / "train.csv")
    assert [(c.mask, c.category) for c in back.cells] == [(c.mask, c.category) for c in frames[0].cells]
