"""Pseudo labels: what is kept, what is dropped, and the reason that is reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.predict import pseudo
from kitlib.predict.pseudo import PseudoConfig, select
from kitlib.records import Cell, Frame, voted_category

CONFIG = PseudoConfig(
    score_threshold={"cort": 0.6, "default": 0.8}, min_area={"default": 10}, min_cells=2, loss_weight=0.5
)


def cell(x, score, category="cort", side=5, y=0, agreement=None):
    mask = rle.from_crop(np.ones((side, side), bool), x, y, 40, 60)
    return Cell(mask, category, score, agreement=agreement)


def image(name, category="cort"):
    return Frame(name, Path(f"{name}.png"), 40, 60, category=category, group="plate")


def found(name, *cells):
    return Frame(name, None, 40, 60, cells, voted_category((c.category, c.confidence) for c in cells))


def test_confident_cells_become_a_training_frame():
    doubtful, speck = cell(20, 0.5), cell(30, 0.99, side=3)
    frames, report = select([image("a")], [found("a", cell(0, 0.7), doubtful, cell(10, 0.9), speck)], CONFIG)
    (frame,) = frames
    assert [c.score for c in frame.cells] == [0.9, 0.7]
    assert (frame.path, frame.group, frame.category, frame.weight) == (Path("a.png"), "plate", "cort", 0.5)
    assert frame.pseudo
    assert (report.labelled, report.doubtful, report.relabelled) == (("a",), 2, 0)
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
def test_without_a_type_in_the_name_the_predicted_one_decides_which_threshold_holds(category, kept):
    cells = cell(0, 0.7, category), cell(10, 0.7, category)
    frames, _ = select([image("a", None)], [found("a", *cells)], CONFIG)
    assert [f.category for f in frames] == [category] * kept


def test_cells_that_none_agrees_on_are_too_few_and_not_of_another_type():
    unsure = replace(cell(0, 0.9), agreement=0.2)
    _, report = select(
        [image("a", "astro")], [found("a", unsure)], replace(CONFIG, agreement={"default": 0.6})
    )
    assert report.dropped[pseudo.TOO_FEW] == ("a",)


def test_an_image_without_confident_cells_is_never_kept():
    frames, report = select([image("a")], [found("a", cell(0, 0.3))], replace(CONFIG, min_cells=0))
    assert frames == []
    assert report.dropped[pseudo.TOO_FEW] == ("a",)


def test_cells_do_not_overlap():
    (frame,), _ = select([image("a")], [found("a", cell(0, 0.9), cell(4, 0.8), cell(20, 0.7))], CONFIG)
    assert rle.areas([c.mask for c in frame.cells]).tolist() == [25, 20, 25]


# ------------------------------------------------------------------------- agreement, size, weights


def test_cells_that_too_few_models_or_views_saw_are_no_labels():
    agreement = {"cort": 0.75, "default": 0.0}
    cells = [cell(10 * i, 0.9, agreement=a) for i, a in enumerate((1.0, 0.75, 0.5, None))]
    (frame,), report = select([image("a")], [found("a", *cells)], replace(CONFIG, agreement=agreement))
    assert {c.agreement for c in frame.cells} == {1.0, 0.75, None}
    assert report.doubtful == 1
    (frame,), _ = select([image("a", None)], [found("a", *cells)], replace(CONFIG, agreement=agreement))
    assert len(frame.cells) == 3


def test_cells_of_an_unlikely_size_are_no_labels():
    config = replace(CONFIG, max_area={"cort": 30, "default": None})
    cells = cell(0, 0.9), cell(10, 0.9), cell(20, 0.9, side=9)
    (frame,), _ = select([image("a")], [found("a", *cells)], config)
    assert rle.areas([c.mask for c in frame.cells]).tolist() == [25, 25]


@pytest.mark.parametrize(("by_score", "weight"), [(False, 0.5), (True, 0.4)])
def test_the_mean_score_may_be_a_factor_of_the_weight(by_score, weight):
    cells = cell(0, 0.9), cell(10, 0.7), cell(20, 0.1)
    (frame,), _ = select([image("a")], [found("a", *cells)], replace(CONFIG, weight_by_score=by_score))
    assert frame.weight == pytest.approx(weight)


def test_a_threshold_for_the_other_types_is_asked_for():
    with pytest.raises(KitError, match="ignore_threshold needs a 'default'"):
        PseudoConfig(ignore_threshold={"astro": 0.3})


# ---------------------------------------------------------------------------------- ignored areas


def ignored(*cells, category="cort", **changes):
    (frame,), report = select([image("a", category)], [found("a", *cells)], replace(CONFIG, **changes))
    area = np.zeros((40, 60), bool) if frame.ignore is None else rle.to_mask(frame.ignore)
    assert report.ignored == pytest.approx(area.mean())
    return area


def boxes(*places):
    area = np.zeros((40, 60), bool)
    for x0, y0, x1, y1 in places:
        area[y0:y1, x0:x1] = True
    return area


SURE = cell(0, 0.9), cell(10, 0.9)


def test_the_boxes_of_doubtful_cells_are_ignored():
    ring = np.ones((9, 9), bool)
    ring[2:7, 2:7] = False
    thin = Cell(rle.from_crop(ring, 40, 20, 40, 60), "cort", 0.4)
    faint = cell(30, 0.29, y=10)
    np.testing.assert_array_equal(ignored(*SURE, thin, faint), boxes((40, 20, 49, 29)))


def test_without_doubts_nothing_is_ignored():
    (frame,), report = select([image("a")], [found("a", *SURE, cell(30, 0.1))], CONFIG)
    assert frame.ignore is None
    assert report.ignored == 0.0


def test_doubt_begins_where_its_type_says():
    cells = *SURE, cell(30, 0.2), cell(40, 0.5)
    assert ignored(*cells, ignore_threshold={"cort": 0.1, "default": 1.0}).sum() == 50
    assert ignored(*cells, ignore_threshold={"astro": 0.1, "default": 0.4}).sum() == 25
    assert ignored(*cells, ignore_threshold={"default": 1.0}).sum() == 0


def test_labels_are_not_ignored_even_within_a_doubtful_cell_s_box():
    around = cell(8, 0.5, side=16)
    expected = boxes((8, 0, 24, 16)) & ~boxes((10, 0, 15, 5))
    np.testing.assert_array_equal(ignored(*SURE, around), expected)


def test_a_label_seen_twice_raises_no_doubt():
    again, beside = cell(12, 0.5), cell(13, 0.5)  # 3 and 2 of 5 columns on the label
    assert not ignored(*SURE, again).any()
    np.testing.assert_array_equal(ignored(*SURE, beside), boxes((15, 0, 18, 5)))


def test_what_is_certain_but_not_agreed_on_or_too_small_is_doubtful():
    lonely, speck = cell(30, 0.95, agreement=0.2), cell(40, 0.95, side=3)
    agreement = {"default": 0.5}
    expected = boxes((30, 0, 35, 5), (40, 0, 43, 3))
    np.testing.assert_array_equal(ignored(*SURE, lonely, speck, agreement=agreement), expected)


def test_cells_without_a_pixel_are_passed_over():
    nothing = Cell(rle.from_mask(np.zeros((40, 60), bool)), "cort", 0.5)
    assert not ignored(*SURE, nothing).any()


def test_no_images_give_no_frames():
    frames, report = select([], [], CONFIG)
    assert (frames, report.labelled, report.ignored) == ([], (), 0.0)


def test_predictions_of_unknown_images_are_refused():
    with pytest.raises(KitError, match="predictions for 'z'"):
        select([image("a")], [found("z")], CONFIG)


def test_the_frames_can_be_written_in_the_competition_s_format(tmp_path):
    frames, _ = select([image("a")], [found("a", cell(0, 0.9), cell(10, 0.7))], CONFIG)
    tables.write_annotations(tmp_path / "train.csv", frames)
    (back,) = tables.read_cells(tmp_path / "train.csv")
    assert [(c.mask, c.category) for c in back.cells] == [(c.mask, c.category) for c in frames[0].cells]
