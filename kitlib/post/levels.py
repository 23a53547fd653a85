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


def pick(predictions: Predictions, config: PostConfig) -> list[Frame]:
    """Each frame as cut at the mask threshold of its type, ready for ``thresholds.apply``."""
    tables = by_level(predictions)
    names = next(iter(tables.values()))
    return [pick_one({k: table[name] for k, table in tables.items()}, config) for name in names]


def pick_one(found: Mapping[float, Frame], config: PostConfig) -> Frame:
    """``pick`` of one frame at several mask thresholds; the cells of the first vote for its type, as they do
    while predicting."""
    category = vote(next(iter(found.values())).cells)
    return found[nearest(list(found), config.limits(category).mask_threshold)]
