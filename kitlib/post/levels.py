"""Predictions whose masks were cut at several probabilities: one table for each mask threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kitlib.post.thresholds import PostConfig, vote
from kitlib.records import Frame

#: Predicted frames, or those of each mask threshold.
Predictions = Sequence[Frame] | Mapping[float, Sequence[Frame]]


def by_level(predictions: Predictions) -> dict[float, dict[str, Frame]]:
    """Frames by mask threshold and id, the usual threshold first; a single table is one of 0.5."""
    tables = predictions if isinstance(predictions, Mapping) else {0.5: predictions}
    ordered = sorted(tables, key=lambda level: (abs(level - 0.5), level))
    return {level: {f.id: f for f in tables[level]} for level in ordered}


def nearest(levels: Sequence[float], wanted: float) -> float:
    """The level that is nearest to the wanted one; the first of equals."""
    return min(levels, key=lambda level: abs(level - wanted))


def pick(found: Mapping[float, Frame], config: PostConfig) -> Frame:
    """Of one frame at several mask thresholds, the usual one first, the one at the threshold of its type: for
    that the cells of the first vote, as they do while predicting."""
    category = vote(next(iter(found.values())).cells)
    return found[nearest(list(found), config.limits(category).mask_threshold)]
