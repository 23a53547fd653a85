"""What the front end is told, on frames that can be scored by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from kitlib import metric
from kitlib.data import corrections
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame
from kitlib.viewer.corrected import Corrected
from kitlib.viewer.layers import gather
from kitlib.viewer.session import Reply, Session

SIZE = (20, 30)


def cell(x: int, y: int, width: int = 4, height: int = 4, score: float | None = None) -> Cell:
    return Cell(rle.from_crop(np.ones((height, width)), x, y, *SIZE), "cort", score)


def frame(name: str, *cells: Cell) -> Frame:
    return Frame(name, None, *SIZE, cells, "cort")


#: "a" has three cells: one is found exactly, one is found too wide (IoU 16/24), one is missed; one is wrong.
TRUTH = [frame("a", cell(0, 0), cell(8, 0), cell(20, 10)), frame("b", cell(2, 2))]
FOUND = [
    frame("a", cell(0, 0, score=0.9), cell(8, 0, width=6, score=0.6), cell(0, 12, score=0.2)),
    frame("b", cell(2, 2, score=0.8)),
]


def session(tmp_path: Path, by: str = "as given", **options: Any) -> Session:
    given = {"prediction": options.pop("found", FOUND), **options.pop("further", {})}
    layers = gather(options.pop("truth", TRUTH), given, options.pop("post", None))
    return Session(layers, Corrected(layers.frames, tmp_path / "corrections.csv"), by)


def ask(opened: Session, kind: str, **fields: Any) -> Reply:
    return opened.answer({"kind": kind, "id": "a", "score": None, "mask": None, **fields})


def edit(opened: Session, name: str, *cells: int, **fields: Any) -> Reply:
    return ask(opened, "edit", edit=name, cells=list(cells), **fields)


def saved(tmp_path: Path, name: str = "a") -> list[rle.RLE]:
    return [each.mask for each in corrections.read(tmp_path / "corrections.csv")[name].cells]


def test_a_frame_comes_with_its_numbers(tmp_path: Path) -> None:
    """At 0.5, 0.55, 0.6 and 0.65 two of four different cells match, above only one of five."""
    reply, blocks = ask(session(tmp_path), "frame")
    numbers = reply["numbers"]
    assert (numbers["cells"], numbers["predicted"], numbers["matched"]) == (3, 3, 2)
    assert numbers["score"] == pytest.approx((4 * 2 / 4 + 6 * 1 / 5) / 10)
    assert reply["layers"]["truth"]["state"] == ["matched", "matched", "missed"]
    assert reply["layers"]["prediction"]["state"] == ["matched", "matched", "wrong"]
    assert reply["layers"]["truth"]["iou"] == [1.0, 0.667, 0.0]
    assert reply["layers"]["prediction"]["area"] == [16, 24, 16]
    assert reply["blocks"] == ["image", "prediction", "pseudo labels", "truth"]
    assert cv2.imdecode(np.frombuffer(blocks[0], np.uint8), cv2.IMREAD_UNCHANGED).shape == SIZE


def test_a_score_threshold_removes_cells_and_changes_the_score(tmp_path: Path) -> None:
    reply, blocks = ask(session(tmp_path), "thresholds", score=0.5)
    assert reply["numbers"]["score"] == pytest.approx((4 * 2 / 3 + 6 * 1 / 4) / 10)
    assert reply["layers"]["removed"]["state"] == ["score below 0.50"]
    assert (reply["blocks"], len(blocks)) == (["prediction"], 1)
    shown, _ = ask(session(tmp_path), "thresholds", score=0.5, removed=True)
    assert shown["blocks"] == ["prediction", "removed"]


def test_without_a_threshold_post_processing_decides(tmp_path: Path) -> None:
    post = PostConfig(score_threshold={"default": 0.7}, min_area={"default": 20}, keep_best=False)
    opened = session(tmp_path, post=post)
    reply, _ = ask(opened, "thresholds")
    assert sorted(reply["layers"]["removed"]["state"]) == ["area under 20 pixels"] * 2 + ["score below 0.70"]
    assert reply["numbers"]["score_threshold"] == 0.7
    assert ask(opened, "thresholds", score=0.5)[0]["numbers"]["predicted"] == 1


def test_the_mask_threshold_chooses_among_predictions(tmp_path: Path) -> None:
    narrow = [frame("a", cell(0, 0, width=1, score=0.9))]
    opened = session(tmp_path, found={0.5: FOUND, 0.8: narrow})
    assert opened.overview()["masks"] == [0.5, 0.8]
    assert ask(opened, "thresholds", mask=0.8)[0]["layers"]["prediction"]["area"] == [4]
    assert ask(opened, "thresholds")[0]["numbers"]["mask_threshold"] == 0.5
    # b was not predicted at 0.8.
    assert ask(opened, "frame", id="b", mask=0.8)[0]["numbers"]["mask_threshold"] == 0.5


@pytest.mark.parametrize(
    ("by", "expected", "why"),
    [
        ("as given", "ab", ""),
        ("name", "ab", ""),
        ("number of cells", "ab", "3 cells"),
        ("score", "ab", "score 0.320"),
        ("disagreement", "ab", "2 without a partner"),
        ("confidence", "ab", "confidence 0.57"),
    ],
)
def test_the_frames_worth_a_look_come_first(tmp_path: Path, by: str, expected: str, why: str) -> None:
    turned = session(tmp_path, by, truth=TRUTH if by == "as given" else TRUTH[::-1])
    assert [place.frame_id for place in turned.places] == list(expected)
    assert turned.overview()["frames"][0]["why"] == why


def test_a_frame_without_predictions_comes_last_and_has_no_score(tmp_path: Path) -> None:
    opened = session(tmp_path, "score", truth=[frame("c", cell(0, 0)), *TRUTH])
    assert [place.frame_id for place in opened.places] == ["a", "b", "c"]
    assert opened.places[-1].why == "not predicted"
    assert ask(opened, "frame", id="c")[0]["numbers"] == {"cells": 1}


def test_a_match_is_one_to_one_like_the_metric_s(tmp_path: Path) -> None:
    """Two overlapping predictions reach one true cell: one of them is wrong."""
    twice = [frame("a", cell(0, 0, score=0.9), cell(0, 0, width=5, score=0.8))]
    reply, _ = ask(session(tmp_path, truth=[frame("a", cell(0, 0))], found=twice), "frame")
    assert sorted(reply["layers"]["prediction"]["state"]) == ["matched", "wrong"]
    assert reply["numbers"]["score"] == metric.score([frame("a", cell(0, 0))], twice).mean


def test_cells_are_deleted_and_the_step_undone(tmp_path: Path) -> None:
    opened = session(tmp_path)
    reply, _ = edit(opened, "delete", 0, 2)
    assert (reply["said"], reply["frame"]["cells"], reply["frame"]["corrected"]) == (
        "deleted in a, saved",
        1,
        True,
    )
    assert saved(tmp_path) == [TRUTH[0].cells[1].mask]
    reply, _ = ask(opened, "undo")
    assert (reply["frame"]["cells"], reply["frame"]["corrected"]) == (3, False)
    assert corrections.read(tmp_path / "corrections.csv") == {}
    with pytest.raises(KitError, match="nothing to undo"):
        ask(opened, "undo")


def test_steps_are_undone_one_by_one_in_whatever_frame(tmp_path: Path) -> None:
    opened = session(tmp_path)
    edit(opened, "delete", 0)
    edit(opened, "delete", 0, id="b")
    edit(opened, "delete", 0)
    assert saved(tmp_path, "b") == []
    assert [ask(opened, "undo")[0]["frame"]["id"] for _ in range(3)] == ["a", "b", "a"]


def test_a_cell_is_split_in_its_place(tmp_path: Path) -> None:
    reply, _ = edit(session(tmp_path), "split", 1, points=[[10.5, -1], [10.5, 5]])
    assert reply["made"] == [1, 2]
    assert rle.areas(saved(tmp_path))[[0, 3]].tolist() == [16, 16]
    assert rle.to_mask(rle.merge(saved(tmp_path)[1:3])).sum() == 16


def test_cells_are_merged_in_the_place_of_the_first(tmp_path: Path) -> None:
    reply, _ = edit(session(tmp_path), "merge", 2, 0)
    assert reply["made"] == [0]
    assert rle.areas(saved(tmp_path)).tolist() == [32, 16]


def test_an_outline_is_a_new_cell_or_takes_the_place_of_one(tmp_path: Path) -> None:
    square, opened = [[25, 1], [28, 1], [28, 4], [25, 4]], session(tmp_path)
    assert edit(opened, "draw", points=square)[0]["made"] == [3]
    assert rle.areas(saved(tmp_path)).tolist() == [16, 16, 16, 9]
    edit(opened, "draw", 0, points=square)
    assert rle.areas(saved(tmp_path)).tolist() == [9, 16, 16, 9]
    assert {each.category for each in corrections.read(tmp_path / "corrections.csv")["a"].cells} == {"cort"}


def test_predicted_cells_are_adopted_as_they_are_at_the_thresholds(tmp_path: Path) -> None:
    opened = session(tmp_path)
    edit(opened, "adopt", 0, layer="removed", score=0.5)
    assert saved(tmp_path)[3:] == [FOUND[0].cells[2].mask]
    assert [each.score for each in corrections.read(tmp_path / "corrections.csv")["a"].cells] == [None] * 4


def test_frames_without_annotation_have_no_score_until_they_are_corrected(tmp_path: Path) -> None:
    opened = session(tmp_path, truth=[replace(each, cells=()) for each in TRUTH])
    assert opened.overview()["orders"] == ["as given", "name", "number of cells", "confidence"]
    assert "score" not in ask(opened, "frame")[0]["numbers"]
    reply, _ = edit(opened, "adopt", 0, 1, layer="prediction")
    assert reply["numbers"]["matched"] == 2


def test_pseudo_labels_are_a_layer(tmp_path: Path) -> None:
    opened = session(tmp_path, further={"pseudo labels": [frame("a", cell(5, 5, score=0.7))]})
    reply, _ = ask(opened, "frame")
    assert reply["layers"]["pseudo labels"]["score"] == [0.7]
    assert ask(opened, "frame", id="b")[0]["layers"]["pseudo labels"]["type"] == []


@pytest.mark.parametrize(
    ("name", "cells", "fields", "problem"),
    [
        ("delete", [], {}, "choose the cells to delete"),
        ("merge", [1], {}, "choose two or more"),
        ("merge", [1, 1], {}, "choose two or more"),
        ("split", [], {"points": [[0, 0], [1, 1]]}, "choose one cell to split"),
        ("split", [0], {"points": [[9, 9], [12, 12]]}, "does not cut"),
        ("draw", [0, 1], {"points": []}, "choose one cell to redraw"),
        ("adopt", [], {"layer": "prediction"}, "choose predicted cells"),
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(
    tmp_path: Path, name: str, cells: list[int], fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(KitError, match=problem):
        edit(session(tmp_path), name, *cells, **fields)
    assert not (tmp_path / "corrections.csv").exists()


def test_corrections_are_taken_up_where_they_were_left(tmp_path: Path) -> None:
    edit(session(tmp_path), "delete", 0)
    again = session(tmp_path)
    assert [each["corrected"] for each in again.overview()["frames"]] == [True, False]
    edit(again, "delete", 0, id="b")
    assert len(saved(tmp_path)) == 2


def test_two_viewers_of_one_file_do_not_undo_each_other(tmp_path: Path) -> None:
    first, second = session(tmp_path), session(tmp_path)
    edit(first, "delete", 0)
    edit(second, "delete", 0, id="b")
    assert (len(saved(tmp_path, "a")), len(saved(tmp_path, "b"))) == (2, 0)


def test_where_no_file_is_named_nothing_can_be_corrected() -> None:
    layers = gather(TRUTH, {})
    with pytest.raises(KitError, match="name a file"):
        edit(Session(layers, Corrected(layers.frames, None), "as given"), "delete", 0)


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ({"predictions": FOUND}, "unknown layer 'predictions': did you mean 'prediction'?"),
        ({"prediction": [frame("z")]}, "no frame of the layer 'prediction'"),
        (
            {"pseudo labels": [Frame("a", None, 40, 30)]},
            "has a frame a of 30 x 40 pixels, but the image has 30 x 20",
        ),
    ],
)
def test_layers_of_other_images_are_refused(layers: dict[str, Any], problem: str) -> None:
    with pytest.raises(KitError) as error:
        gather(TRUTH, layers)
    assert problem in str(error.value)


def test_no_frames_are_refused() -> None:
    with pytest.raises(KitError, match="no frame to show"):
        gather([], {})


def test_the_picture_for_readers_shows_what_is_found_wrong_and_missed(tmp_path: Path) -> None:
    """The outlines have the colours of the legend above them, and the picture is wide enough to read."""
    (tmp_path / "shown.png").write_bytes(session(tmp_path).fallback())
    picture = np.asarray(Image.open(tmp_path / "shown.png").convert("RGB")).astype(int)
    assert picture.shape[1] >= 600
    body = picture[28:]
    for color in ((0x2E, 0xE6, 0xA6), (0xFF, 0x6B, 0x45), (0x5C, 0xC3, 0xFF)):
        assert (abs(body - color).max(axis=2) < 40).any()


@pytest.mark.parametrize("cells", [0, 800])
def test_empty_and_crowded_frames_are_shown(tmp_path: Path, cells: int) -> None:
    crowd = [cell(i % 29, i // 29 % 19, 1, 1) for i in range(cells)]
    opened = session(tmp_path, truth=[frame("a", *crowd), TRUTH[1]], found=[frame("a"), FOUND[1]])
    reply, _ = ask(opened, "frame")
    assert reply["numbers"]["score"] == (0.0 if cells else 1.0)
    assert opened.fallback().startswith(b"\x89PNG")
