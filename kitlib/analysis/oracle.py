"""What errors cost in the metric: TIDE's oracle (Bolya et al. 2020), which corrects one kind at a time.

To correct an error is to replace its predictions by its true cells, with their true outlines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kitlib import metric
from kitlib.analysis.errors import KINDS, Error, Kind
from kitlib.records import Frame


@dataclass(frozen=True)
class Cost:
    """What the errors of one kind cost.

    Attributes:
        kind: see ``errors.KINDS``.
        errors: their number.
        gain: the rise of the score if they were corrected, the mean over images.
        low: the lower end of the gain's 90 % bootstrap interval over images.
        high: its upper end.
        by_category: the gain on the images of each type.
    """

    kind: Kind
    errors: int
    gain: float
    low: float
    high: float
    by_category: dict[str, float]


def costs(truth: Sequence[Frame], predictions: Sequence[Frame], errors: Sequence[Error]) -> list[Cost]:
    """What each kind of error costs, in the order of ``errors.KINDS``.

    The gains do not add up to the distance from a perfect score, as the denominator of the precision changes
    with each correction; after all of them together the score is 1.

    Args:
        truth: frames with their true cells.
        predictions: the frames in which the errors were found.
        errors: of ``errors.find``.
    """
    before = metric.score(truth, predictions).by_image
    rows = []
    for kind in KINDS:
        chosen = [error for error in errors if error.kind == kind]
        score = metric.score(truth, corrected(truth, predictions, chosen))
        gains = {frame.id: score.by_image[frame.id] - before[frame.id] for frame in truth}
        by_category: dict[str, list[float]] = defaultdict(list)
        for frame in truth:
            by_category[frame.category or "unknown"].append(gains[frame.id])
        values = list(gains.values())
        means = {name: float(np.mean(by_category[name])) for name in sorted(by_category)}
        rows.append(Cost(kind, len(chosen), float(np.mean(values)), *metric.interval(values), means))
    return rows


def corrected(truth: Sequence[Frame], predictions: Sequence[Frame], errors: Sequence[Error]) -> list[Frame]:
    """The predicted frames with true cells in place of the predictions that take part in errors.

    Args:
        truth: frames with their true cells.
        predictions: the frames in which the errors were found.
        errors: those to correct.
    """
    found = {frame.id: frame for frame in predictions}
    by_frame: dict[str, list[Error]] = defaultdict(list)
    for error in errors:
        by_frame[error.frame_id].append(error)
    frames = []
    for frame in truth:
        cells = found[frame.id].cells if frame.id in found else ()
        removed = {index for error in by_frame[frame.id] for index in error.predicted}
        left = [cell for index, cell in enumerate(cells) if index not in removed]
        added = [frame.cells[index] for error in by_frame[frame.id] for index in error.truth]
        frames.append(replace(frame, cells=(*left, *added)))
    return frames
