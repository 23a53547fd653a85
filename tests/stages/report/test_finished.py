"""What the last cell of a notebook shows."""

from __future__ import annotations

from pathlib import Path

from kitlib.stages.report.finished import Finished, finished

METRICS = {
    **{
        "stage": "03_train",
        "map": 0.15727799045283225,
        "by_type": {"astro": 0.016017917710804165, "cort": 1.0},
    },
    "area": {"cort": 1630.25},
    **{"accepted": True, "weights": ["fold_0/weights_best.pth"], "cells": 41479, "skipped": {}},
}


def test_numbers_are_rounded_and_the_values_are_whole() -> None:
    shown = Finished(METRICS, "Good.")
    assert shown == METRICS
    assert repr(shown).splitlines() == [
        "stage     03_train",
        "map       0.157",
        "by type   astro: 0.016, cort: 1.000",
        "area      cort: 1,630.2",
        "accepted  yes",
        "weights   fold_0/weights_best.pth",
        "cells     41,479",
        "skipped   none",
        "Good.",
    ]


def test_a_notebook_shows_a_table_and_the_sentence_escaped() -> None:
    shown = Finished({"weights": "<b>.pth"}, "a < b")._repr_html_()
    assert shown.count("<tr>") == 1
    assert "<b>" not in shown
    assert "&lt;b&gt;.pth" in shown
    assert shown.endswith("<p>a &lt; b</p>")


def test_a_long_value_is_cut() -> None:
    line = repr(Finished({"skipped": {f"image{n}": "broken" for n in range(99)}}))
    assert len(line) < 120
    assert line.endswith(" ...")


def test_a_sentence_of_the_advice_is_shown_once() -> None:
    sentence = "More images would bring more. " * 5
    assert repr(Finished({"map": 0.5, "more_images": sentence}, f"Good. {sentence}")).count("would") == 5


def test_the_advice_is_that_on_the_stage(runs) -> None:
    run = runs("demo", {"a": 0})
    assert "0.700 on 0 validation images" in repr(finished({"stage": "03_train"}, run))
    assert repr(finished({"stage": "06_submit"}, None)) == "stage  06_submit"


def test_a_damaged_earlier_stage_costs_only_the_advice(runs, tmp_path: Path) -> None:
    run = runs("demo", {"a": 0})
    runs.finish(run, "01_eda", {})
    (run / "01_eda" / "metrics.json").write_text("{")
    assert "There is no advice, as" in repr(finished({"stage": "03_train"}, run))
