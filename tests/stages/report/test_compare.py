"""Runs beside each other, with scores that can be worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kitlib import files, metric, records
from kitlib.errors import KitError
from kitlib.post import gate
from kitlib.stages.report import compare

#: Of an image whose cell is where it is, moved by two pixels (4 of 10 thresholds), and far off.
WHOLE, PART, NONE = 1.0, 0.4, 0.0


def test_scores_are_those_of_the_images_in_common(runs) -> None:
    first, second = runs("first", {"a": 0, "b": 2, "c": 20}), runs("second", {"a": 2, "b": 0})
    found, _ = compare.compare([first, second])
    assert (found.images, found.left_out) == (2, (1, 0))
    means = [{name: part.mean for name, part in score.items()} for score in found.scores]
    assert means == [
        {"all images": pytest.approx((WHOLE + PART) / 2), "astro": pytest.approx(PART), "cort": WHOLE},
        {"all images": pytest.approx((PART + WHOLE) / 2), "astro": WHOLE, "cort": pytest.approx(PART)},
    ]
    assert "1 of first" in found.sentences[1]
    assert found.gains[0]["cort"].mean == pytest.approx(PART - WHOLE)


def test_the_difference_is_paired_by_image(runs) -> None:
    """A constant gain on every image is more than noise, however much the images differ."""
    worse, better = runs("worse", {"a": 2, "b": 20, "c": 20}), runs("better", {"a": 0, "b": 2, "c": 2})
    found, _ = compare.compare([worse, better])
    gain = found.gains[0]["all images"]
    assert gain.mean == pytest.approx(((WHOLE - PART) + 2 * (PART - NONE)) / 3)
    assert gain.low > 0
    assert "more than noise" in found.sentences[-1]
    assert (
        "no more than noise"
        in compare.compare([runs("third", {"a": 0, "b": 20, "c": 2}), better])[0].sentences[-1]
    )


def test_the_bootstrap_is_that_of_the_gate(runs) -> None:
    one, other = runs("one", {"a": 0, "b": 20, "c": 2}), runs("other", {"a": 2, "b": 2, "c": 2})
    found, _ = compare.compare([one, other])
    truth = records.read_frames(one / "03_train" / "fold_0" / "val.npz")
    sides = [compare._judge(run, run.name).found.values() for run in (one, other)]
    decided = gate.decide(truth, *(list(side) for side in sides), confidence=0.95)
    assert found.gains[0]["all images"].low == pytest.approx(decided.at_least)
    assert found.gains[0]["all images"].mean == pytest.approx(decided.gain)


def test_the_intervals_are_those_of_the_metric(runs) -> None:
    one = runs("one", {"a": 0, "b": 20, "c": 2})
    found, _ = compare.compare([one, runs("other", {"a": 0, "b": 0, "c": 0})])
    score = found.scores[0]["all images"]
    assert (score.low, score.high) == metric.interval([WHOLE, NONE, PART])
    assert found.scores[0]["cort"].text() == "1.000 (one image)"


def test_images_that_are_annotated_differently_are_left_out(runs) -> None:
    one, other = runs("one", {"a": 0, "b": 0}), runs("other", {"a": 0, "b": 0})
    path = other / "03_train" / "fold_0" / "val.npz"
    first, second = records.read_frames(path)
    records.write_frames(path, [first, compare.Frame("b", None, 30, 40, (), second.category)])
    found, _ = compare.compare([one, other])
    assert (found.images, found.left_out) == (1, (1, 1))
    assert "a single image" not in found.sentences[0]
    assert "score the same on every image" in found.sentences[-1]


def test_retrained_weights_are_compared_where_they_were_accepted(runs) -> None:
    run = runs("retrained", {"a": 20, "b": 20})
    best = runs("best", {"a": 0, "b": 0})
    (run / "05_retrain").mkdir()
    (best / "03_train" / "out_of_fold.csv").rename(run / "05_retrain" / "out_of_fold.csv")
    metrics = {"map": 1.0, "accepted": True, "weights": ["fold_0/weights_best.pth"]}
    runs.finish(run, "05_retrain", metrics)
    found, _ = compare.compare([run, runs("plain", {"a": 20, "b": 20})])
    assert found.stages == ("05_retrain", "03_train")
    assert [score["all images"].mean for score in found.scores] == [1.0, 0.0]


def test_the_page_has_what_differs_and_the_curves(runs) -> None:
    demo = runs("demo", {"a": 0, "b": 2}, max_iter=7)
    mine = runs("<mine>", {"a": 0, "b": 2}, max_iter=9, schedule={"max_lr": 1e-3})
    _, page = compare.compare([demo, mine])
    assert page == demo.parent / "compare_demo_<mine>.html"
    text = page.read_text()
    assert "<mine>" not in text
    assert "&lt;mine&gt;" in text
    rows = re.findall(r"<tr><td>03_train\.(\S+?)</td><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td></tr>", text)
    assert ("max_iter", "7", "9") in rows
    assert ("schedule.max_lr", "0.0006", "0.001") in rows
    assert ("schedule.warmup_iters", "30", "not set") in rows
    assert text.count("data:image/webp;base64,") == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["one"], "name at least two runs"),
        (["one", "one"], "is named twice"),
        (["one", "nowhere"], r"nowhere is not a run's folder"),
        (["one", "apart"], "one, apart share no validation image"),
        (["one", "untrained"], "untrained has no out_of_fold.csv of 03_train to compare"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(runs, names: list[str], said: str) -> None:
    runs("one", {"a": 0})
    runs("apart", {"b": 0})
    runs.finish(runs.folder / "untrained", "01_eda", {"images": {}})
    with pytest.raises(KitError, match=said):
        compare.compare([runs.folder / name for name in names])


def test_runs_of_the_same_name_are_told_apart(runs, tmp_path: Path) -> None:
    found, _ = compare.compare([runs("x/demo", {"a": 0, "b": 0}), runs("y/demo", {"a": 2, "b": 2})])
    assert found.labels == ("x/demo", "y/demo")


def test_a_third_run_is_compared_with_the_first(runs) -> None:
    folders = [runs(name, {"a": by, "b": by}) for name, by in (("p", 20), ("q", 2), ("r", 0))]
    found, page = compare.compare(folders)
    assert np.allclose([gain["all images"].mean for gain in found.gains], [PART, WHOLE])
    assert found.table().head == ("mean and 90 % interval", "p", "q", "r", "q - p", "r - p")
    assert page.name == "compare_p_q_r.html"
    assert files.read_json(folders[0] / "03_train" / "metrics.json")["map"] == 0.7
