"""Models that share their proposals: one alone is itself, several agree."""

import numpy as np
import pytest
import torch
from detectron2.structures import pairwise_iou
from PIL import Image

from kitlib.predict import network as plain
from kitlib.predict import proposals
from kitlib.predict.config import PredictConfig
from kitlib.predict.load import load_models
from kitlib.predict.predictor import Predictor

CATEGORIES = ("astro", "cort", "shsy5y")


@pytest.fixture(scope="module")
def models(checkpoint, other_checkpoints):
    return load_models([checkpoint, other_checkpoints[0]]).models


@pytest.fixture(scope="module")
def grey(images):
    return [np.asarray(Image.open(frame.path)) for frame in images[:2]]


def look(models, grey, floor=0.0):
    with plain.ready(models, floor, 30):
        return proposals.look(models, grey)


def same(ours, theirs):
    assert len(ours) == len(theirs) > 10
    assert torch.equal(ours.pred_classes, theirs.pred_classes)
    for name in ("scores", "pred_masks"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, rtol=0, atol=1e-3)


def test_one_model_finds_what_it_finds_by_itself(models, grey):
    with plain.ready(models, 0.0, 30):
        alone = plain.look(models[0], grey)
    for ours, theirs in zip(look(models[:1], grey), alone, strict=True):
        same(ours, theirs)


def test_twice_the_same_model_changes_nothing(models, grey, monkeypatch):
    alone = look(models[:1], grey)
    monkeypatch.setattr(proposals, "pool", lambda found, _: found[0])
    for ours, theirs in zip(look([models[0]] * 2, grey), alone, strict=True):
        same(ours, theirs)


def test_the_order_of_the_models_is_of_no_matter(models, grey):
    for ours, theirs in zip(look(models, grey), look(models[::-1], grey), strict=True):
        same(ours, theirs)


def test_pooled_proposals_are_of_all_models_and_each_place_once(models, grey):
    with plain.ready(models, 0.0, 30):
        found = [proposals._features_and_proposals(model, grey)[1] for model in models]
        pooled = proposals.pool(found, 0.7)
    for image, together in enumerate(pooled):
        logits, boxes = together.objectness_logits, together.proposal_boxes
        assert len(together) > 60
        assert (pairwise_iou(boxes, boxes).fill_diagonal_(0) <= 0.7).all()
        for one in found:
            assert torch.isin(one[image].objectness_logits, logits).any()


def test_a_predictor_counts_the_models_as_one_source(models, grey):
    config = PredictConfig(fuse="proposals", score_floor=0.0, max_cells=20, tta=("none", "flip_h"))
    cells = Predictor(models, CATEGORIES, config)(grey[0])
    assert {c.agreement for c in cells} <= {0.5, 1.0}
    assert len(cells) > 5
