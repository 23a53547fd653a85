"""``python -m kitlib.predict JOB.yaml``: one process's share of a job, started by ``kitlib.predict.run``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from kitlib import config, launch, records
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.predict.infer import read_ahead
from kitlib.predict.job import PROGRESS, part, unfinished
from kitlib.predict.load import load_models
from kitlib.predict.predictor import Predictor


def main() -> None:
    """Predict every WORLD_SIZE-th frame that is not done yet; the parts go beside the job's file.

    A frame that cannot be predicted is told in the progress and left to ``kitlib.predict.run``.
    """
    path = Path(sys.argv[1])
    job = config.load(PredictJob, path)
    frames = records.read_frames(job.frames)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = [i for i in unfinished(path.parent, frames) if i % world == rank]
    if not mine:
        return
    predictor = Predictor(*load_models(job.weights, _device()), job.config)
    with (path.parent / PROGRESS).open("a", encoding="utf-8") as progress:
        for index, (frame, image) in zip(mine, read_ahead(frames[i] for i in mine), strict=True):
            try:
                tables = predictor.at_levels(image())
            except KitError as error:
                row = {"id": frame.id, "skipped": str(error), "note": f"{frame.id} is left out: {error}"}
            else:
                found = [replace(frame, cells=cells) for cells in tables]
                records.write_frames(part(path.parent, index), found)
                row = {"id": frame.id, "cells": len(tables[0])}
            progress.write(json.dumps(row) + "\n")
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
