"""Cross-validated tuning of post-processing: all kinds of scores and methods, on all cores."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import bench_post
import numpy as np
from harness import Row, race, seconds

from kitlib.post.tuning import cross_validation, shares
from kitlib.records import Cell, Frame

IMAGES = 606


def scored(images: int) -> tuple[list[Frame], list[Frame]]:
    """Validation frames, and predictions whose mask scores tell as much as their box scores."""
    truth, predictions = bench_post.held_out(images)
    rng = np.random.default_rng(2)

    def with_mask_score(cell: Cell) -> Cell:
        return replace(cell, mask_score=round(float(rng.uniform(cell.confidence, 1)), 6))

    return truth, [replace(f, cells=tuple(map(with_mask_score, f.cells))) for f in predictions]


def one_process(truth: list[Frame], predictions: list[Frame]) -> None:
    """The same without other processes."""
    with mock.patch.object(shares.launch, "cores", return_value=1):
        cross_validation.cross_validate(truth, predictions)


def rows():
    """The rows of this module."""
    truth, predictions = scored(IMAGES)
    few = truth[:34], predictions[:34]
    work = "34 images of 250 instances, four kinds of scores, five folds; peer: one process"
    times = race(lambda: cross_validation.cross_validate(*few), lambda: one_process(*few), 1, warm=False)
    yield Row("cross-validation, some", work, *times)
    work = f"{IMAGES} images of 250 instances, four kinds of scores, five folds"
    alone = seconds(lambda: cross_validation.cross_validate(truth, predictions), 1, warm=False)
    yield Row("cross-validation", work, alone, bar=120)
