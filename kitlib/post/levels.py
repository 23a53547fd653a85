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
    """Each frame as cut at the mask threshold of its type, ready for ``thresholds.apply``.

    The type is what the first table's cells vote for, as it is while predicting.
    """
    tables = by_level(predictions)
    levels = list(tables)
    wanted = {f.id: config.limits(vote(f.cells)).mask_threshold for f in tables[levels[0]].values()}
    return [tables[nearest(levels, level)][name] for name, level in wanted.items()]
