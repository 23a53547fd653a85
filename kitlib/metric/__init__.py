"""The competition's metric; ``kitlib.metric.comparison`` has what biologists ask for beside it."""

from kitlib.metric.competition import (
    Counts,
    Score,
    interval,
    means,
    means_by_category,
    precision,
    score,
)
from kitlib.metric.matching import THRESHOLDS

__all__ = ["THRESHOLDS", "Counts", "Score", "interval", "means", "means_by_category", "precision", "score"]
