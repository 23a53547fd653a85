"""``python -m kitlib.predict JOB.yaml``: one process's share of a job, started by ``kitlib.predict.run``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from kitlib import config, launch, records
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.predict.infer import predict_frames
from kitlib.predict.job import PROGRESS, part, unfinished
from kitlib.predict.load import load_model
from kitlib.predict.predictor import Predictor


def main() -> None:
    """Predict every WORLD_SIZE-th frame that is not done yet; the parts go beside the job's file."""
    path = Path(sys.argv[1])
    job = config.load(PredictJob, path)
    frames = records.read_frames(job.frames)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = [i for i in unfinished(path.parent, frames) if i % world == rank]
    if not mine:
        return
    model, categories = load_model(job.weights[0], _device())
    predictor = Predictor([model], categories, job.config)
    predicted = predict_frames(predictor, [frames[i] for i in mine])
    with (path.parent / PROGRESS).open("a", encoding="utf-8") as progress:
        for index, frame in zip(mine, predicted, strict=True):
            records.write_frames(part(path.parent, index), [frame])
            progress.write(json.dumps({"id": frame.id, "cells": len(frame.cells)}) + "\n")
            progress.flush()


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
