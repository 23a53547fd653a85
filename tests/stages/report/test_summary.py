"""The report of a run: what it says, what it embeds, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from kitlib import records
from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.stages.record import Record
from kitlib.stages.report import page, summary

#: Whatever a browser would fetch.
FETCHED = re.compile(r"<script|<link|<iframe|@import|url\(|src=\"(?!data:)", re.IGNORECASE)


def text_of(path: Path) -> str:
    """A page as a reader sees it."""
    body = path.read_text().partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture
def run(runs) -> Path:
    made = runs("demo", {"a": 0, "b": 2}, max_iter=7, schedule={"name": "cosine", "max_lr": 1e-3})
    retrained = {
        **{"map": 0.75, "map_before": 0.7, "by_type": {"astro": 0.5, "cort": 1.0}, "pseudo_images": 3},
        "coco_ap": {"astro": 0.31, "cort": 0.402, "all": 0.356},
        **{"accepted": True, "gate_passed": True, "gain": 0.05, "gain_at_least": 0.012},
    }
    runs.finish(
        made, "04_pseudolabel", {"images": {"pseudo-labelled": 3, "nothing found": 2}, "cells": {"cort": 9}}
    )
    runs.finish(made, "05_retrain", retrained)
    runs.picture(made, "03_train", "mask_loss")
    return made


def test_the_report_gathers_what_the_run_left(run: Path) -> None:
    said = text_of(summary.write(run))
    assert "demo profile demo · synthetic cells · 3 of 6 stages done · 4 min 30 s" in said
    assert "all images 0.700 0.750 0.356 astro 0.200 0.500 0.310 cort 1.000 1.000 0.402" in said
    assert "03_train max_iter 7 320" in said
    assert "03_train schedule.max_lr 0.001 0.0006" in said
    assert "The gate: the retrained weights replace the earlier ones: a gain of +0.0500" in said
    assert "pseudo-labelled 3 nothing found 2" in said
    assert "CPU a <fast> one, 2 cores" in said
    assert "What to try next" in said


def test_parameters_that_are_the_defaults_stand_only_in_the_list_of_all(run: Path) -> None:
    text = summary.write(run).read_text()
    first, _, everything = text.partition("<summary>All parameters</summary>")
    assert "images_per_batch" not in first
    assert "images_per_batch" in everything


def test_figures_are_in_the_page_and_nothing_is_fetched(run: Path) -> None:
    text = summary.write(run).read_text()
    (source,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    with Image.open(io.BytesIO(base64.b64decode(source))) as image:
        assert image.size == (60, 40)
    assert not FETCHED.search(text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_every_name_is_escaped(runs) -> None:
    run = runs("<script>alert(1)</script>", {"a": 0}, weights="<img src=x onerror=alert(2)>")
    runs.picture(run, "03_train", "<b>&")
    runs.finish(run, "04_pseudolabel", {"images": {"<i>reason</i>": 1}, "cells": {}})
    text = summary.write(run).read_text()
    assert not re.search(r"<script>|<img src=x|<b>|<i>", text)
    assert "&lt;img src=x onerror=alert(2)&gt;" in text


def test_commands_are_set_as_code_and_escaped(tmp_path: Path) -> None:
    section = page.Section("next", points=("Then `kit <b> RUN` packs it.",))
    path = page.write(page.Page("t", "", (), (section,)), tmp_path / "page.html")
    assert "<li>Then <code>kit &lt;b&gt; RUN</code> packs it.</li>" in path.read_text()


def test_a_run_without_records_has_a_report(runs) -> None:
    """Another version of the kit may have left them."""
    run = runs("by-hand", {"a": 0})
    (run / "03_train" / "stage.json").unlink()
    said = text_of(summary.write(run))
    assert "by-hand synthetic cells · 1 of 6 stages done" in said
    assert "0.700" in said


def test_a_stage_that_runs_is_told_from_one_that_is_done(run: Path) -> None:
    Record("key", False, 0.0, {}).save(run / "06_submit")
    said = text_of(summary.write(run))
    assert "06_submit runs, or stopped" in said
    assert "05_retrain done 1 min 30 s" in said


def test_notebooks_are_linked_by_relative_paths(run: Path) -> None:
    (run / "03_train" / "03_train.html").write_text("")
    text = summary.write(run).read_text()
    assert re.findall(r"<nav>(.*)</nav>", text) == ['<a href="03_train/03_train.html">03_train</a>']


def test_the_submission_is_checked(run: Path, runs) -> None:
    runs.finish(run, "06_submit", {"images": 2, "cells": 1})
    submission = run / "06_submit" / "submission.csv"
    submission.write_text("id,predicted\nx,1 5\ny,\n")
    assert "cannot be checked again" in text_of(summary.write(run))
    images = [Frame(name, None, 30, 40) for name in ("x", "y")]
    records.write_frames(run / "06_submit" / "test.npz", images)
    assert "submission.csv is valid" in text_of(summary.write(run))
    submission.write_text("id,predicted\nx,1 5\n")
    said = text_of(summary.write(run))
    assert "submission.csv would be rejected (1 faults): image y has no row" in said


def test_a_stage_that_had_nothing_to_do_is_told(run: Path, runs) -> None:
    runs.finish(run, "04_pseudolabel", {"nothing_to_do": "No image is unlabelled."})
    assert "04_pseudolabel nothing to do 1 min 30 s No image is unlabelled." in text_of(summary.write(run))


def test_a_report_is_whole_or_the_former_one(run: Path) -> None:
    path = summary.write(run)
    before = path.read_text()
    (run / "03_train" / "metrics.json").write_text("{")
    with pytest.raises(KitError, match="not whole JSON"):
        summary.write(run)
    assert path.read_text() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="is not a run's folder"):
        summary.write(tmp_path)
    assert list(tmp_path.iterdir()) == []
