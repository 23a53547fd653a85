"""What the cells of one's own images decide, and what stays with the user."""

from __future__ import annotations

import pytest

from kitlib.data.proposals import Proposal
from kitlib.inputs.config import AugmentConfig
from kitlib.stages import fitting, parameters

PROPOSAL = Proposal(
    scale=0.5,
    crop=64,
    largest=700,
    anchor_sizes=((9.0,), (18.0,), (36.0,), (72.0,), (144.0,)),
    pixel_mean=13.0,
    pixel_std=15.0,
    reasons=dict.fromkeys(("scales", "crop", "anchors", "grey_levels"), "so it is"),
)


def training(**values) -> parameters.Training:
    return parameters.read("03_train", values)


def test_the_cells_decide_all_that_is_left_to_them():
    given = training(
        augment={"scale_by_type": {"a": [1, 2]}, "crop": [32, 1000]},
        predict_config={"scales": [1.0, 2.0], "scales_by_type": {"a": [3.0]}},
    )
    found, decided = fitting.fitted(given, PROPOSAL, "")
    assert found.augment == AugmentConfig(scale=(0.38, 0.67), crop=(64, 704))
    assert found.predict_config.scales == (0.42, 0.59)
    assert found.predict_config.scales_by_type == {}
    architecture = found.model(1).architecture
    assert architecture.anchor_sizes == PROPOSAL.anchor_sizes
    assert (architecture.pixel_mean, architecture.pixel_std) == (13.0, 15.0)
    assert len(decided) == 5
    assert all(text.endswith(("so it is", "around that")) for text in decided.values())


def test_a_training_on_whole_frames_stays_one():
    found, _ = fitting.fitted(training(augment={"crop": None}), PROPOSAL, "")
    assert found.augment.crop is None


def test_weights_of_photographs_get_grey_levels_of_half_the_spread():
    """lite0 is made for a standard deviation of one half, tiny and what begins at random for one."""
    given = training(preset="lite0")
    found, _ = fitting.fitted(given, PROPOSAL, "imagenet")
    assert (found.model_options["pixel_mean"], found.model_options["pixel_std"]) == (13.0, 30.0)
    published, _ = fitting.fitted(training(preset="r50"), PROPOSAL, "imagenet")
    assert "pixel_std" not in published.model_options


def test_weights_that_were_trained_before_keep_their_grey_levels():
    found, decided = fitting.fitted(training(), PROPOSAL, "02/weights_last.pth")
    assert "pixel_mean" not in found.model_options
    assert "anchor_sizes" in found.model_options
    assert not any("pixel" in name for name in decided)


def test_phases_have_what_the_cells_decided():
    phases = [{"max_iter": 5, "augment": {"scale": [1, 2], "crop": [64, 64], "blur": 1.0}}]
    found, _ = fitting.fitted(training(phases=phases, from_data=["scales"]), PROPOSAL, "")
    assert found.phases[0].max_iter == 5
    assert found.phases[0].augment == {"crop": (64, 64), "blur": 1.0}
    again = parameters.read("05_retrain", {"phases": phases})
    assert fitting.as_before(again, AugmentConfig()).phases[0].augment == {"blur": 1.0}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"phases": [{"max_iter": 3}, {"augment": {"scale": [1, 2]}}]}, ["crop", "anchors", "grey_levels"]),
        ({}, ["scales", "crop", "anchors", "grey_levels"]),
        ({"augment": {"scale": [1, 2]}}, ["crop", "anchors", "grey_levels"]),
        ({"predict_config": {"scales": [2]}, "augment": {"flip": False}}, ["crop", "anchors", "grey_levels"]),
        ({"model_options": {"pixel_std": 9}}, ["scales", "crop", "anchors"]),
        ({"augment": {"crop": None}, "model_options": {"anchor_sizes": []}}, ["scales", "grey_levels"]),
    ],
)
def test_what_the_user_chose_is_not_left_to_the_data(chosen, left):
    assert fitting.left_to_data({"03_train": chosen})["03_train"] == {"from_data": left}


def test_what_is_left_to_the_data_may_be_said_outright():
    chosen = {"from_data": ["crop"], "augment": {"crop": [64, 64]}}
    assert "03_train" not in fitting.left_to_data({"03_train": chosen})


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, AugmentConfig(scale=(0.3, 0.6), crop=(512, 512))),
        ({"augment": {"scale": [1, 2]}}, AugmentConfig(scale=(1.0, 2.0), crop=(512, 512))),
        ({"augment": {"crop": [64, 64]}}, AugmentConfig(scale=(0.3, 0.6), crop=(64, 64))),
        ({"augment": {"crop": None, "scale": [1, 2]}}, AugmentConfig(scale=(1.0, 2.0), crop=None)),
        ({"from_data": []}, AugmentConfig(scale=(1.2, 1.8), crop=(192, 192))),
    ],
)
def test_a_retraining_augments_as_03_but_for_what_the_user_set(chosen, expected):
    earlier = AugmentConfig(scale=(0.3, 0.6), crop=(512, 512))
    left = fitting.left_to_data({"05_retrain": chosen}).get("05_retrain", {})
    given = parameters.read("05_retrain", {**chosen, **left})
    assert fitting.as_before(given, earlier).augment == expected
