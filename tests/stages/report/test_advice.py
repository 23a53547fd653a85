"""How good, against what, what next: each rule at both sides of its condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitlib import config
from kitlib.post.config import PostConfig, Tuned
from kitlib.stages.report import runs as reading
from kitlib.stages.report.advice import Advice, advise


def advice(run: Path, stage: str) -> Advice:
    found = reading.read(run)
    finished = found.stage(stage)
    assert finished is not None
    return advise(found, finished)


@pytest.fixture
def told(runs):
    """``told(stage, metrics, **parameters)``: the advice on a stage of a run with a finished 03_train."""

    def tell(stage: str, metrics: dict[str, Any], **parameters: Any) -> Advice:
        run = runs("demo", {"a": 0, "b": 2})
        runs.finish(run, stage, metrics, parameters)
        return advice(run, stage)

    return tell


@pytest.fixture
def competition_folder(tmp_path: Path) -> Path:
    """As much of it as it takes to be recognised."""
    folder = tmp_path / "cells"
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text("id,annotation,width,height,cell_type\n")
    return folder


def steps(found: Advice) -> str:
    return " ".join(found.steps)


def test_a_training_is_told_with_its_interval_and_against_the_paper(told, competition_folder: Path) -> None:
    metrics = {"map": 0.7, "by_type": {"cort": 0.7}, "validation_images": 7}
    found = told("03_train", metrics, data=str(competition_folder))
    assert found.verdict == (
        "0.700 on 7 validation images, cross-validated (90 % interval 0.400 to 1.000); the paper's model "
        "reached 0.338 on Kaggle's private images, which are others."
    )


def test_synthetic_or_own_cells_are_not_compared_with_the_paper(
    told, competition_folder: Path, tmp_path: Path
) -> None:
    metrics = {"map": 0.7, "by_type": {"cort": 0.7}, "validation_images": 7}
    own = told("03_train", metrics, data=str(tmp_path / "own"))
    assert own.verdict.endswith("(90 % interval 0.400 to 1.000).")
    (competition_folder / "test_truth.csv").write_text("")
    assert "these cells are synthetic" in told("03_train", metrics, data=str(competition_folder)).verdict
    assert told("03_train", {**metrics, "by_type": {"HeLa": 0.7}}).verdict.endswith(
        "(90 % interval 0.400 to 1.000)."
    )


def test_a_wide_interval_asks_for_all_folds_unless_all_were_trained(runs) -> None:
    run = runs("demo", {"a": 0})
    metrics = {"map": 0.7, "validation_images": 7}
    for fold, low, wide in ((0, 0.4, True), (-1, 0.4, False), (0, 0.9, False)):
        config.save(Tuned(PostConfig(), 0.7, low, 1.0), run / "03_train" / "post.yaml")
        runs.finish(run, "03_train", metrics, {"fold": fold})
        assert ("03.fold=-1" in steps(advice(run, "03_train"))) == wide, (fold, low)


@pytest.mark.parametrize(("low", "named"), [(0.41, True), (0.43, False)])
def test_a_type_far_below_the_mean_is_named(told, low: float, named: bool) -> None:
    """Below 60 % of 0.7."""
    found = told("03_train", {"map": 0.7, "by_type": {"astro": low, "cort": 0.9}})
    assert (f"Type astro is far below the others ({low:.3f})" in steps(found)) == named


@pytest.mark.parametrize(("score", "hopeless"), [(0.049, True), (0.05, False)])
def test_a_network_that_learned_nothing_needs_training_first(told, score: float, hopeless: bool) -> None:
    found = told("03_train", {"map": score, "by_type": {"astro": 0.0, "cort": 0.1}})
    assert ("Hardly any cell is matched" in steps(found)) == hopeless
    assert ("Type astro" in steps(found)) != hopeless


def test_what_more_images_would_bring_is_told_where_it_was_measured(told) -> None:
    assert "would bring" in steps(told("03_train", {"map": 0.7, "more_images": "10 more would bring 0.01."}))
    assert "would bring" not in steps(told("03_train", {"map": 0.7}))


def test_the_tiny_network_is_named_and_a_larger_one_is_not(told) -> None:
    assert "'tiny'" in steps(told("03_train", {"map": 0.7}))
    assert "'tiny'" not in steps(told("03_train", {"map": 0.7}, preset="r50"))


def test_the_data_are_told_in_numbers(told, runs) -> None:
    metrics = {
        **{
            "images": {"labelled": 34},
            "cells_by_type": {"cort": 1000, "astro": 195},
            "livecell": {"images": 9},
        },
        "faults": {"holes": 235, "overlaps": 1863},
    }
    found = told("01_eda", metrics)
    assert found.verdict == (
        "34 labelled images with 1,195 cells of 2 types; 235 masks have holes, 1,863 pairs of masks overlap."
    )
    assert found.steps == ("With 03.cleaning.fill_holes=true the network trains on masks without holes.",)
    runs.finish(runs.folder / "new", "01_eda", {**metrics, "faults": {}, "livecell": {"images": 0}})
    before = steps(advice(runs.folder / "new", "01_eda"))
    assert "34 images are few" in before
    assert "There is no LIVECell" in before
    assert "fill_holes" not in before


@pytest.mark.parametrize(("iterations", "short"), [(49, True), (50, False)])
def test_a_pretraining_says_how_often_it_saw_each_image(told, iterations: int, short: bool) -> None:
    found = told("02_pretrain_livecell", {"iterations": iterations, "images": 100}, images_per_batch=2)
    assert f"each of 100 images was seen {iterations / 50:.1f} times" in found.verdict
    assert bool(found.steps) == short


def test_pseudo_labels_that_none_or_one_type_passed(told) -> None:
    none = told("04_pseudolabel", {"images": {"pseudo-labelled": 0, "nothing found": 4}, "cells": {}})
    assert none.verdict == "0 of 4 unlabelled images became pseudo labels (no cells)."
    assert "lower 04.score_threshold" in steps(none)
    images = {"pseudo-labelled": 1, "nothing found": 0}
    assert "Only cort passed" in steps(told("04_pseudolabel", {"images": images, "cells": {"cort": 9}}))
    both = told("04_pseudolabel", {"images": images, "cells": {"cort": 9, "astro": 1}})
    assert (both.verdict.endswith("(9 cort, 1 astro)."), both.steps) == (True, ())


GATE = {"map": 0.75, "map_before": 0.7, "gain": 0.05, "gain_at_least": -0.01, "gate_passed": False}


def test_retrained_weights_and_what_the_gate_said(told) -> None:
    refused = told("05_retrain", {**GATE, "accepted": False, "pseudo_images": 3})
    assert refused.verdict.startswith("0.750 after retraining, 0.700 before, on the same images; the earlier")
    assert "may pass the gate" in steps(refused)
    forced = told("05_retrain", {**GATE, "accepted": True, "pseudo_images": 3})
    assert forced.verdict.endswith(
        "which is not more than 0; they are used all the same, as use_retrained asks."
    )
    assert "a further round" in steps(forced)
    alone = told("05_retrain", {**GATE, "accepted": True, "gate_passed": True, "pseudo_images": 0})
    assert "No pseudo labels took part" in steps(alone)


def test_a_stage_that_had_nothing_to_do_says_why(told) -> None:
    assert (
        told("04_pseudolabel", {"nothing_to_do": "No image is unlabelled."}).text == "No image is unlabelled."
    )


def test_a_submission_is_told_beside_what_is_expected(told, competition_folder: Path) -> None:
    metrics = {"map": 0.5, "cells": 982, "images": 16, "skipped": {"x": "broken"}, "reduced": {"x": 1}}
    found = told("06_submit", metrics, data=str(competition_folder))
    assert found.verdict == (
        "submission.csv is valid: 982 cells in 16 images; 0.700 is to be expected (0.400 to 1.000), and "
        "0.500 is what the known truth of the test images says."
    )
    assert "1 image could not be predicted" in steps(found)
    assert "raise 06.hours" in steps(found)
    assert "`kit bundle" in steps(found)


@pytest.mark.parametrize("stage", sorted(f"0{n}" for n in range(1, 7)))
def test_metrics_of_another_version_make_no_error(runs, stage: str) -> None:
    from kitlib.stages import resolve

    run = runs("demo", {"a": 0})
    runs.finish(run, resolve(stage), {})
    assert advice(run, resolve(stage)).text
