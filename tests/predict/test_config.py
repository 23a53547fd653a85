"""Settings that make no sense are refused."""

import pytest

from kitlib import config
from kitlib.errors import KitError
from kitlib.predict import PredictConfig, PredictJob


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales": []}, r"scales must hold at least 1 value"),
        ({"scales": [1.0, 1.0]}, "scales must be different values"),
        ({"scales": [0.0]}, r"scales\.0 must be above 0"),
        ({"scales_by_type": {"astro": []}}, r"scales_by_type\.astro must hold at least 1 value"),
        ({"scales_by_type": {"astro": [0.5, -1.0]}}, r"scales_by_type\.astro\.1 must be above 0"),
        ({"tta": ["flip"]}, "did you mean 'flip_"),
        ({"tta": ["none", "none"]}, "tta must be different"),
        ({"tile": [0, 5]}, r"tile\.0 must be above 0"),
        (
            {"candidate_mask_thresholds": [0.4, 0.401]},
            "candidate_mask_thresholds must differ by 0.01 or more",
        ),
        ({"stride": [5, 5]}, "there is no tile"),
        ({"mask_threshold": {"astro": 0.4}}, "mask_threshold needs a 'default'"),
        ({"fuse": "mean"}, "fuse"),
        ({"candidate_mask_thresholds": [40, 50]}, r"candidate_mask_thresholds\.0 must be below 1, not 40"),
        ({"mask_threshold": {"default": 0.0}}, r"mask_threshold\.default must be above 0"),
        ({"score_floor": 5}, "score_floor must be at most 1, not 5"),
        ({"fuse_iou": -0.1}, "fuse_iou must be at least 0"),
        ({"max_cells": 0}, "max_cells must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_refused(values, message):
    with pytest.raises(KitError, match=message):
        config.from_dict(PredictConfig, values)


def test_mask_thresholds_by_type():
    settings = PredictConfig(mask_threshold={"default": 0.5, "astro": 0.45})
    assert [settings.mask_threshold_of(t) for t in ("astro", "cort", None)] == [0.45, 0.5, 0.5]


def test_a_job_needs_weights():
    with pytest.raises(KitError, match="weights must hold at least 1 value"):
        PredictJob((), "frames.npz", "out.csv")
