"""The figures of errors, anchors and images on real cells; predictions are the true cells, moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kitlib import metric, viz
from kitlib.analysis import anchors, errors, images, oracle, steps, suspects
from kitlib.data import competition
from kitlib.masks import rle
from kitlib.model.presets import Architecture
from kitlib.post.config import PostConfig
from kitlib.records import Frame


@pytest.fixture(scope="module")
def truth(real_competition: Path) -> list[Frame]:
    """The first frame of each type."""
    return list({f.category: f for f in competition.labelled(real_competition)[::-1]}.values())


@pytest.fixture(scope="module")
def predicted(truth: list[Frame]) -> list[Frame]:
    return [moved(frame) for frame in truth]


def moved(frame: Frame) -> Frame:
    """Three of four cells, each two pixels to the right, with falling scores."""
    cells = []
    for place, cell in enumerate(frame.cells):
        if place % 4:
            box = rle.boxes([cell.mask])[0]
            x, y = box[:2].tolist()
            mask = rle.from_crop(rle.crop(cell.mask, box), x + 2, y, frame.height, frame.width)
            cells.append(replace(cell, mask=mask, score=0.95 - 0.9 * place / len(frame.cells)))
    return replace(frame, cells=tuple(cells))


def test_errors_of_real_cells(drawn, truth: list[Frame], predicted: list[Frame]) -> None:
    found = errors.find(truth, predicted)
    table = errors.counts(truth, predicted, found)
    fates = table[["found", "missed", "merged", "split", "badly outlined"]].sum(axis=1)
    assert fates.tolist() == table["true cells"].tolist()
    missed = sum(len(frame.cells[::4]) for frame in truth)
    # Some that were left out lie in others, and a move of two pixels is too much for the smallest.
    assert table["missed"].sum() == pytest.approx(missed, rel=0.1)
    costs = oracle.costs(truth, predicted, found)
    assert all(cost.gain >= 0 for cost in costs)
    drawn(viz.error_costs(costs, metric.score(truth, predicted).mean))
    drawn(viz.cell_fates(table))
    assert len(drawn(viz.worst_errors(truth, predicted, errors.worst(found, 1))).axes) % 4 == 0


def test_suspects_and_steps_of_real_cells(drawn, truth: list[Frame], predicted: list[Frame]) -> None:
    ranked = suspects.find(truth, predicted)
    scores = [each.score for each in ranked]
    assert scores == sorted(scores, reverse=True)
    assert {"found by no model", "overlaps another cell"} <= {each.reason for each in ranked}
    drawn(viz.suspect_cells(truth, predicted, ranked[:4]))
    removals = steps.follow(truth, predicted, PostConfig())
    drawn(viz.post_steps(removals))
    reasons = steps.removed_by(removals)
    for frame in predicted:
        low = {place for place, cell in enumerate(frame.cells) if cell.score < 0.5}
        assert {p for p, reason in reasons[frame.id].items() if reason == "score threshold"} == low


def test_anchors_and_images_of_real_cells(drawn, truth: list[Frame]) -> None:
    fits = anchors.by_type(truth, Architecture(), {"default": 1.5, "astro": 0.75})
    table = anchors.table(fits)
    assert (table["IoU at least 0.5"] > 0.5).all()
    assert (table["IoU at least 0.7"] < table["IoU at least 0.5"]).all()
    drawn(viz.anchor_fit(fits, Architecture()))
    drawn(viz.anchors_over_cells(truth, Architecture(), {"default": 1.5}))
    measured = [images.measure(frame) for frame in truth]
    qualities = [one.quality for one in measured]
    assert np.all([each.focus > 3 for each in qualities])
    drawn(viz.image_quality(qualities, {frame.id: frame.category or "" for frame in truth}))
    drawn(viz.grey_levels({"labelled": images.grey_levels(one.shares for one in measured)}))
    drawn(viz.compare_sets({frame.category or "": [frame] for frame in truth}))
