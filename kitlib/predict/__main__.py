"""``python -m kitlib.predict JOB.yaml``: one process's share of a job, started by ``kitlib.predict.run``."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from kitlib import config, records
from kitlib.errors import KitError
from kitlib.offline import reason
from kitlib.predict import true_boxes
from kitlib.predict.budget import Budget, plans
from kitlib.predict.config import PredictJob
from kitlib.predict.models import load_models
from kitlib.predict.predictor import Predictor, read_ahead
from kitlib.predict.progress import Progress, part_file
from kitlib.runtime import launch

logger = logging.getLogger(__name__)


def main() -> None:
    """Predict this process's share of the frames that are not done yet; the parts go beside the job's file.

    A frame that cannot be predicted, whatever the reason, is skipped with a row in the job's progress.
    """
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
    for index, (frame, image) in zip(mine, read_ahead(frames[i] for i in mine), strict=True):
        plan = budget.next()
        progress.begun(frame)
        if plan is None:
            progress.skipped(frame, "there was no time left for it")
            continue
        predictor = predictors[plan.without]
        try:
            prediction = predictor(image())
            found = prediction.frames(frame)
            if job.in_true_boxes:
                found.append(replace(frame, cells=true_boxes.draw(predictor, image(), frame)))
        except Exception as error:
            logger.exception("%s", frame.id)
            if torch.cuda.is_initialized():
                # Raises where the process can predict no more; another one then takes over.
                torch.cuda.synchronize()
            progress.skipped(frame, str(error) if isinstance(error, KitError) else reason(error))
        else:
            records.write_frames(part_file(path.parent, index), found)
            progress.done(frame, prediction, budget.done(plan), plan.without, predictor.reduced)


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
