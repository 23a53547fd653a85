"""Figures. Each function returns a matplotlib Figure without showing it."""

from kitlib.viz.cells import before_after, gallery
from kitlib.viz.crops import suspect_cells, worst_errors
from kitlib.viz.curves import learning_curves, mask_loss, schedule
from kitlib.viz.distributions import cell_sizes, cells_per_image, folds, types
from kitlib.viz.failures import cell_fates, error_costs, post_steps
from kitlib.viz.images import compare_sets, grey_levels, image_quality, near_duplicates
from kitlib.viz.model import anchor_fit, anchors_over_cells, network
from kitlib.viz.scores import (
    by_category,
    by_threshold,
    growth,
    leaderboard,
    reliability,
    tuning,
    tuning_methods,
)
from kitlib.viz.search import search_history, search_slices
from kitlib.viz.training import read_training_stages, training_samples, training_stages

__all__ = [
    "anchor_fit",
    "anchors_over_cells",
    "before_after",
    "by_category",
    "by_threshold",
    "cell_fates",
    "cell_sizes",
    "cells_per_image",
    "compare_sets",
    "error_costs",
    "folds",
    "gallery",
    "grey_levels",
    "growth",
    "image_quality",
    "leaderboard",
    "learning_curves",
    "mask_loss",
    "near_duplicates",
    "network",
    "post_steps",
    "read_training_stages",
    "reliability",
    "schedule",
    "search_history",
    "search_slices",
    "suspect_cells",
    "training_samples",
    "training_stages",
    "tuning",
    "tuning_methods",
    "types",
    "worst_errors",
]
