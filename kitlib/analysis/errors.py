"""What goes wrong between predicted and true cells, by kind.

The kinds are those of TIDE that need no class (Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020), with its bounds: a cell is found at an IoU above 0.5, and a
prediction that nowhere has an IoU above 0.1 lies on background. Merged and split cells, which TIDE does not
know, stand beside them (Caicedo et al., "Evaluation of Deep Learning Strategies for Nucleus Segmentation in
Fluorescence Images", Cytometry A, 2019). Half of a cell is their bound here, more than to touch two others,
since each cell takes part in one error only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.masks.rle import RLE
from kitlib.metric import matching
from kitlib.records import Frame

Kind = Literal["missed", "merged", "split", "badly outlined", "duplicate", "background", "inexact outline"]
#: "inexact outline" is no error but what found cells lose at IoU thresholds above 0.5.
KINDS: tuple[Kind, ...] = (
    *("missed", "merged", "split", "badly outlined", "duplicate", "background", "inexact outline"),
)
SIZES = ("small", "medium", "large")
_BACKGROUND_IOU = 0.1
# A cell lies in another one if at least this share of it does.
_INSIDE = 0.5


@dataclass(frozen=True)
class Error:
    """One error, with the cells that take part in it.

    Attributes:
        frame_id: the frame.
        kind: see ``KINDS``.
        truth: indices of true cells in the true frame, each in one error at most: one missed, badly outlined,
            split or inexact cell, two or more merged ones, none of a duplicate or of background.
        predicted: indices of predicted cells in the predicted frame, each in one error at most.
        iou: the best IoU of a true and a predicted cell that take part; for a duplicate and for background
            the prediction's best with any true cell.
        extent: pixels that belong to the true or to the predicted cells of the error but not to both, in
            median true cells of the frame: how large the fault is, whatever the type.
    """

    frame_id: str
    kind: Kind
    truth: tuple[int, ...]
    predicted: tuple[int, ...]
    iou: float
    extent: float


def find(truth: Sequence[Frame], predictions: Sequence[Frame]) -> list[Error]:
    """The errors of all frames, frame by frame; types of cells play no part, as in the metric.

    As many cells as possible are found, as the metric matches them, and among such matchings the one with the
    highest sum of IoUs counts. Then, in this order:

    - merged: a prediction covers at least half of each of two or more true cells that nothing else finds;
      cells that lie in one another count once;
    - split: at least half of each of two or more predictions, which do not lie in one another, lies in one
      true cell;
    - inexact outline: every other true cell that is found;
    - badly outlined: a prediction's best true cell, at an IoU above 0.1, is not part of another error yet;
    - duplicate: it is;
    - background: the prediction's best IoU is 0.1 at most;
    - missed: every true cell that is left.

    Args:
        truth: frames with their true cells.
        predictions: the same frames with predicted cells, matched by id; a missing one has none.
    """
    found = {frame.id: frame for frame in predictions}
    return [
        error
        for frame in truth
        for error in _Sorting(frame, found.get(frame.id, replace(frame, cells=()))).errors()
    ]


def counts(truth: Sequence[Frame], predictions: Sequence[Frame], errors: Sequence[Error]) -> pd.DataFrame:
    """How many cells take part in errors of each kind, by type and size.

    Small, medium and large are thirds of the true cells of a type. Columns: ``type``, ``size``, ``up to``
    (the largest area of that third in pixels, None for the last), ``true cells``, ``found``, then the kinds
    of errors; duplicates and background count predictions, by the predictions' size, the others true cells,
    so that found, missed, merged, split and badly outlined add up to the true cells.

    Args:
        truth: frames with their true cells.
        predictions: the frames in which the errors were found.
        errors: of ``find``.
    """
    table: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    areas = {frame.id: _areas(frame) for frame in truth}
    predicted = {frame.id: _areas(frame) for frame in predictions}
    types = {frame.id: frame.category or "unknown" for frame in truth}
    bounds = {name: _thirds([areas[f.id] for f in truth if types[f.id] == name]) for name in types.values()}
    for frame in truth:
        for area in areas[frame.id]:
            table[types[frame.id], _size(area, bounds[types[frame.id]])]["true cells"] += 1
    for error in errors:
        name = types[error.frame_id]
        sizes = areas[error.frame_id][list(error.truth)]
        if not error.truth:
            sizes = predicted[error.frame_id][list(error.predicted)]
        column = "found" if error.kind == "inexact outline" else error.kind
        for area in sizes:
            table[name, _size(area, bounds[name])][column] += 1
    columns = ("true cells", "found", *KINDS[:-1])
    return pd.DataFrame(
        {"type": name, "size": size, "up to": bound, **{c: table[name, size][c] for c in columns}}
        for name in sorted(bounds)
        for size, bound in zip(SIZES, (*bounds[name], None), strict=True)
    )


def worst(errors: Sequence[Error], of_each_kind: int = 3) -> list[Error]:
    """The errors of the largest extent of each kind, kind by kind, without inexact outlines.

    Args:
        errors: of ``find``.
        of_each_kind: at most.
    """
    chosen: list[Error] = []
    for kind in KINDS[:-1]:
        same = (error for error in errors if error.kind == kind)
        chosen += sorted(same, key=lambda error: (-error.extent, error.frame_id))[:of_each_kind]
    return chosen


def match(iou: NDArray[np.float64]) -> dict[int, int]:
    """The predicted cell that finds each true cell: as many pairs with an IoU above 0.5 as possible, and of
    such matchings the one with the highest sum of IoUs.

    Args:
        iou: (T, P) of true and predicted cells.
    """
    pairs = matching.matched(matching.of_matrix(iou))
    return dict(zip(pairs.true.tolist(), pairs.predicted.tolist(), strict=True))


class _Sorting:
    """The sorting of one frame's errors.

    Attributes:
        iou: (T, P) of true and predicted cells.
        covered: (T, P) share of each true cell that each prediction covers.
        inside: (T, P) share of each prediction that lies in each true cell.
        finder: the prediction that finds each true cell that is found.
        truth_left: true cells that are part of no error yet; ``predicted_left`` the same of predictions.
    """

    def __init__(self, truth: Frame, predicted: Frame) -> None:
        self.frame_id = truth.id
        self.truth = [cell.mask for cell in truth.cells]
        self.predicted = [cell.mask for cell in predicted.cells]
        self.median_area = float(np.median(rle.areas(self.truth))) if self.truth else 1.0
        self.iou = rle.iou(self.truth, self.predicted)
        self.covered = rle.shares(self.truth, self.predicted)
        self.inside = rle.shares(self.predicted, self.truth).T
        self.finder = match(self.iou)
        self.finds = {column: row for row, column in self.finder.items()}
        self.truth_left = set(range(len(self.truth)))
        self.predicted_left = set(range(len(self.predicted)))

    def errors(self) -> Iterator[Error]:
        """All errors, each when the cells of those before it are taken."""
        yield from self._merged()
        yield from self._split()
        yield from self._inexact()
        yield from self._misplaced()
        for index in sorted(self.truth_left):
            yield self._error("missed", [index], [])

    def _merged(self) -> Iterator[Error]:
        for column in np.flatnonzero((self.covered >= _INSIDE).sum(axis=0) > 1).tolist():
            free = {row for row in self.truth_left if self.finder.get(row, column) == column}
            rows = [row for row in np.flatnonzero(self.covered[:, column] >= _INSIDE).tolist() if row in free]
            cells = _apart(rows, self.truth)
            if len(cells) > 1:
                yield self._error("merged", cells, [column])

    def _split(self) -> Iterator[Error]:
        for row in np.flatnonzero((self.inside >= _INSIDE).sum(axis=1) > 1).tolist():
            free = {column for column in self.predicted_left if self.finds.get(column, row) == row}
            inside = np.flatnonzero(self.inside[row] >= _INSIDE).tolist()
            parts = _apart([column for column in inside if column in free], self.predicted)
            if row in self.truth_left and len(parts) > 1:
                yield self._error("split", [row], parts)

    def _inexact(self) -> Iterator[Error]:
        for row, column in self.finder.items():
            if row in self.truth_left and column in self.predicted_left:
                yield self._error("inexact outline", [row], [column])

    def _misplaced(self) -> Iterator[Error]:
        """Predictions that find nothing; of several on one true cell the one with the highest IoU is it."""
        best = self.iou.max(axis=0, initial=0)
        for column in sorted(self.predicted_left, key=lambda column: -best[column]):
            if best[column] <= _BACKGROUND_IOU:
                yield self._error("background", [], [column])
                continue
            row = int(self.iou[:, column].argmax())
            free = row in self.truth_left
            yield self._error("badly outlined" if free else "duplicate", [row] if free else [], [column])

    def _error(self, kind: Kind, truth: list[int], predicted: list[int]) -> Error:
        self.truth_left -= set(truth)
        self.predicted_left -= set(predicted)
        rows = truth or list(range(len(self.truth)))
        iou = self.iou[np.ix_(rows, predicted)].max(initial=0)
        wrong = _difference([self.truth[i] for i in truth], [self.predicted[i] for i in predicted])
        return Error(
            self.frame_id, kind, tuple(truth), tuple(predicted), float(iou), wrong / self.median_area
        )


def _apart(chosen: list[int], masks: Sequence[RLE]) -> list[int]:
    """Those of the chosen cells that lie by less than half in a larger one of them, the larger first."""
    areas = rle.areas([masks[i] for i in chosen])
    ranked = [chosen[i] for i in np.argsort(-areas, kind="stable")]
    inside = rle.shares([masks[i] for i in ranked], [masks[i] for i in ranked])
    apart: list[int] = []
    for place in range(len(ranked)):
        if (inside[place, apart] < _INSIDE).all():
            apart.append(place)
    return [ranked[place] for place in apart]


def _difference(truth: Sequence[RLE], predicted: Sequence[RLE]) -> int:
    """Pixels of the true or of the predicted cells that are not in both."""
    return 2 * rle.covered([*truth, *predicted]) - rle.covered(truth) - rle.covered(predicted)


def _areas(frame: Frame) -> NDArray[np.int64]:
    return rle.areas([cell.mask for cell in frame.cells])


def _thirds(areas: Sequence[NDArray]) -> tuple[int, int]:
    """The largest areas of the first and of the second third of cells."""
    together = np.concatenate([*areas, np.zeros(0, np.int64)])
    if not len(together):
        return 0, 0
    low, high = np.quantile(together, [1 / 3, 2 / 3])
    return int(low), int(high)


def _size(area: int, bounds: tuple[int, int]) -> str:
    return SIZES[int(np.searchsorted(bounds, area, side="left"))]
