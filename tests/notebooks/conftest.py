"""Runs of real notebooks with the smallest model, in silence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from kitlib import stages
from kitlib.stages import record

MODEL = {
    **{"fpn_channels": 32, "rpn_pre_nms_topk": [50, 50], "rpn_post_nms_topk": [20, 20], "rpn_batch": 64},
    **{"roi_batch": 24, "box_width": 32, "mask_convs": 1, "mask_width": 32, "detections": 50},
}


@pytest.fixture(scope="session")
def run_notebooks() -> Callable[..., list[record.Row]]:
    """``run_notebooks(data, out, settings)``: a row for each stage."""

    def run(
        data: Path,
        out: Path,
        settings: list[str],
        own_data: bool = False,
        say: Callable[[str], object] = str,
    ) -> list[record.Row]:
        models = [f"{stage}.model_options={json.dumps(MODEL)}" for stage in ("02", "03")]
        plan = stages.plan("demo", [*models, *settings], {"gpus": 0}, own_data=own_data)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return stages.run(plan.in_folders(data, out), data, out, say=say)

    return run
