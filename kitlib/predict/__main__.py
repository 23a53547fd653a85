"""``python -m kitlib.predict JOB.yaml``: one process's share of a job, started by ``kitlib.predict.run``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from kitlib import config, records
from kitlib.errors import KitError
from kitlib.predict import pipeline
from kitlib.predict.budget import Budget, plans
from kitlib.predict.config import PredictJob
from kitlib.predict.finish import Numbered
from kitlib.predict.models import load_models
from kitlib.predict.predictor import Predictor
from kitlib.predict.progress import Progress
from kitlib.runtime import launch


def main() -> None:
    """Predict this process's share of the frames that are left; the parts go beside the job's file."""
    path = Path(sys.argv[1])
    job = config.load(PredictJob, path)
    frames = records.read_frames(job.frames)
    progress = Progress(path.parent)
    mine = progress.assigned(*launch.share())
    if not mine:
        return
    models, categories = load_models(job.weights, _device())
    choices = plans(job.config, len(models))
    predictors = {plan.without: Predictor(models[: plan.models], categories, plan.config) for plan in choices}
    budget = Budget(choices, [frames[i].height * frames[i].width for i in mine], job.until)
    died = progress.deaths()
    pipeline.predict(
        [Numbered(i, frames[i], died[frames[i].id] > 0) for i in mine],
        predictors,
        budget,
        path.parent,
        job.in_true_boxes,
    )


def _device() -> str:
    if not launch.gpus_asked():
        return "cpu"
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise KitError(
            f"GPU {index} was asked for but there are {torch.cuda.device_count()}; give a smaller --gpus"
        )
    return f"cuda:{index}"


if __name__ == "__main__":
    launch.child(main)
