"""The parameters of profile `paper` against the paper's text, and docs/paper.md against the profile."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from kitlib import config as configs
from kitlib import stages
from kitlib.predict.config import PredictConfig
from kitlib.stages.names import NOTEBOOKS, ROOT
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig, curve

PAGE = (ROOT / "docs/paper.md").read_text()
PARAMETERS = stages.plan("paper").parameters
TRAININGS = ("02_pretrain_livecell", "03_train", "05_retrain")


def section(stage, cls, name):
    return configs.from_dict(cls, PARAMETERS[stage][name])


#: Eq. 4 by hand: 1e-5 + 0.002495 (1 + cos(pi t / 200)). t is never set back, so training ends in a trough.
RATES = {0: 0.005, 50: 0.00426923, 100: 0.002505, 150: 0.00074077, 200: 1e-5, 300: 0.002505, 400: 0.005}


@pytest.mark.parametrize("stage", TRAININGS)
def test_the_learning_rate_is_equation_4(stage):
    schedule = section(stage, ScheduleConfig, "schedule")
    rates = curve(schedule, PARAMETERS[stage]["max_iter"])
    assert [rates[t] for t in RATES] == pytest.approx(list(RATES.values()), rel=1e-5)
    assert rates[4600:5000:200] == pytest.approx([1e-5, 0.005])
    assert rates[-1] == pytest.approx(1.0308e-5, rel=1e-4)  # cos(pi / 200) = 0.99987663


@pytest.mark.parametrize("stage", TRAININGS)
def test_the_last_weights_are_kept(stage):
    """No evaluation before the last iteration, no early stop, no average of the weights."""
    assert PARAMETERS[stage].get("eval_every", 0) == PARAMETERS[stage].get("patience", 0) == 0
    assert PARAMETERS[stage]["ema_decay"] == 0


def test_four_fifths_train_and_every_image_counts_alike():
    assert (PARAMETERS["03_train"]["fold"], PARAMETERS["03_train"]["folds"]) == (0, 5)
    assert PARAMETERS["03_train"]["cleaning"] == {}
    for stage in ("03_train", "05_retrain"):
        assert section(stage, SamplerConfig, "sampler") == SamplerConfig(balance=0.0, pseudo_share=None)


def test_the_retrained_model_begins_as_the_first_and_is_used_whatever_the_gate_says():
    given = PARAMETERS["05_retrain"]
    assert (given["start_from"], given["weights"]) == ("02_pretrain_livecell", "")
    assert (given["use_retrained"], given["finetune_iter"], given["fold"]) == ("always", 0, -1)


def test_one_score_threshold_is_all_that_post_processing_tunes():
    for stage in ("03_train", "05_retrain"):
        assert (PARAMETERS[stage]["ways"], PARAMETERS[stage]["score_kinds"]) == (["score threshold"], ["box"])
    look = configs.from_dict(PredictConfig, PARAMETERS["03_train"]["predict_config"])
    assert (look.mask_threshold, look.levels, look.scales_by_type) == ({"default": 0.5}, (), {})
    for stage in ("04_pseudolabel", "05_retrain", "06_submit"):  # which predict as 03 does
        assert PARAMETERS[stage]["predict_config"] == {}


def test_pseudo_labels_count_as_annotations_do():
    given = PARAMETERS["04_pseudolabel"]
    assert (given["weight"], given["soft"], given["min_cells"]) == (1.0, False, 1)
    assert given["doubt"] == {"default": 1.0}  # nothing is ignored


def test_the_page_names_every_parameter_of_the_profile():
    profile = configs.read_yaml(NOTEBOOKS / "profiles/paper.yaml")
    assert f"`device: {profile.pop('device')}`" in PAGE
    for stage, given in profile.items():
        assert f"`{stage}`" in PAGE
        nested = [key for value in given.values() if isinstance(value, dict) for key in value]
        for name in {*given, *nested} - {"default"}:
            assert re.search(rf"`(\w+\.)*{name}[`:. ]", PAGE), f"{stage}.{name}"


def test_what_a_hundred_detections_cost_is_as_the_page_says(real_annotations):
    """A perfect model that may predict 100 cells of n scores min(1, 100 / n): each of its cells is a match at
    every threshold, and the others are missed."""
    rows = pd.read_csv(real_annotations, usecols=["id", "cell_type"])
    images = rows.groupby("id").agg(cells=("cell_type", "size"), type=("cell_type", "first"))
    best = (100 / images["cells"]).clip(upper=1)
    for value in (best.mean(), *best.groupby(images["type"]).mean()):
        assert f"{value:.3f}" in PAGE
    over = (images["cells"] > 100).sum()
    assert f"{over} of {len(images)} images" in PAGE
