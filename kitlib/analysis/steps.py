"""What each step of post-processing removes, and what that does to the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from kitlib import metric
from kitlib.analysis import errors
from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame


@dataclass(frozen=True)
class Removal:
    """One step of post-processing on all frames.

    Attributes:
        name: of the step, one of ``thresholds.STEPS``.
        cells: how many instances are left after it, in all frames.
        removed: places, in each predicted frame by id, of the instances that it removed.
        found: how many of the removed ones had found a true cell, at an IoU above 0.5, until then: what
            the step costs.
        score: the metric after the step.
        by_category: the metric of each type after the step.
    """

    name: str
    cells: int
    removed: dict[str, tuple[int, ...]]
    found: int
    score: float
    by_category: dict[str, float]


def follow(truth: Sequence[Frame], predictions: Sequence[Frame], config: PostConfig) -> list[Removal]:
    """The steps of ``thresholds.apply`` one after another; the first removes nothing.

    Args:
        truth: frames with their true cells.
        predictions: the same frames with all instances found in them, not post-processed, at the mask
            threshold that the configuration asks for; matched by id, a missing one has none.
        config: post-processing. Tuned on these frames it shows what it does, not what to expect of it.
    """
    predicted = {frame.id: frame for frame in predictions}
    found = {f.id: predicted.get(f.id, replace(f, cells=(), category=None)) for f in truth}
    steps = {name: thresholds.steps(frame, config) for name, frame in found.items()}
    removals = []
    for number, name in enumerate(thresholds.STEPS):
        before = {key: each[max(number - 1, 0)].cells for key, each in steps.items()}
        after = {key: each[number].cells for key, each in steps.items()}
        left = [replace(found[key], cells=tuple(cells.values())) for key, cells in after.items()]
        score = metric.score(truth, left)
        removed = {key: tuple(i for i in before[key] if i not in after[key]) for key in steps}
        lost = sum(_finders(frame, before[frame.id], removed[frame.id]) for frame in truth)
        count = sum(map(len, after.values()))
        removals.append(Removal(name, count, removed, lost, score.mean, score.by_category))
    return removals


def removed_by(removals: Sequence[Removal]) -> dict[str, dict[int, str]]:
    """For each frame's id, the step that removed an instance by the instance's place: why it is gone."""
    reasons: dict[str, dict[int, str]] = {name: {} for name in removals[0].removed}
    for removal in removals:
        for name, places in removal.removed.items():
            reasons[name] |= dict.fromkeys(places, removal.name)
    return reasons


def table(removals: Sequence[Removal]) -> pd.DataFrame:
    """One row a step: ``left``, ``removed``, ``of these found``, ``score``, and ``gain`` by the step."""
    scores = [removal.score for removal in removals]
    return pd.DataFrame(
        {
            "left": removal.cells,
            "removed": sum(map(len, removal.removed.values())),
            "of these found": removal.found,
            "score": removal.score,
            "gain": removal.score - before,
        }
        for removal, before in zip(removals, [scores[0], *scores[:-1]], strict=True)
    ).set_axis([removal.name for removal in removals])


def _finders(truth: Frame, before: Mapping[int, Cell], removed: Sequence[int]) -> int:
    """How many of the removed instances found a true cell among the instances that there were."""
    if not removed:
        return 0
    iou = rle.iou([cell.mask for cell in truth.cells], [cell.mask for cell in before.values()])
    numbers = list(before)
    return len({numbers[column] for column in errors.match(iou).values()} & set(removed))
