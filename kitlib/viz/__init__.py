"""Figures. Each function returns a matplotlib Figure without showing it."""

from kitlib.viz.cells import before_after, gallery
from kitlib.viz.curves import learning_curves, mask_loss, schedule
from kitlib.viz.distributions import cell_sizes, cells_per_image, folds, types
from kitlib.viz.scores import by_category, by_threshold, tuning, tuning_methods

__all__ = [
    "before_after",
    "by_category",
    "by_threshold",
    "cell_sizes",
    "cells_per_image",
    "folds",
    "gallery",
    "learning_curves",
    "mask_loss",
    "schedule",
    "tuning",
    "tuning_methods",
    "types",
]
