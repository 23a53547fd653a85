"""Real training steps, a real prediction, and the real loader, on the device that is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import torch
from detectron2.utils.events import EventStorage

from kitlib.forecast import random_weights
from kitlib.predict.predictor import Predictor, predict_frames
from kitlib.records import Frame
from kitlib.train.build import build_loader, build_model
from kitlib.train.config import TrainConfig
from kitlib.train.processes import Processes
from kitlib.train.trainer import Trainer

STEPS = 2
# A core prepares images for so long, and so many at least.
_LOADING_SECONDS, _LOADED = 2.0, 6


class Measured(NamedTuple):
    """Seconds, and the most GiB of the GPU's memory; None on the CPU."""

    seconds: float
    gib: float | None


class Loading(NamedTuple):
    """Images that a core prepares in a second, and GiB of memory that preparing them takes."""

    images_per_second: float
    gib: float


def step(config: TrainConfig, frames: Sequence[Frame], device: torch.device, images: int) -> Measured:
    """A training step, the second of two, as the first one sets everything up.

    Args:
        config: of the training; its weights are random.
        frames: to train on.
        device: where.
        images: of this process, at once.
    """
    here = Processes(rank=0, world=1, device=device)
    config = replace(config, weights="", images_per_batch=images * config.accumulate)
    model, _ = build_model(config, here)
    random_weights.settle(model)
    trainer = Trainer(config, here, model, build_loader(replace(config, workers=0), here, frames))
    batches = iter(trainer.loader)

    def one() -> None:
        trainer.step(batch)
        if trainer.average is not None:
            trainer.average.update(model)

    with EventStorage():
        for _ in range(STEPS):
            batch = next(batches)
            taken = _taken(one, device)
    return taken


def prediction(config: TrainConfig, frame: Frame, detections: int, device: torch.device) -> Measured:
    """The prediction of a frame with random weights that find ``detections`` cells, by one model.

    Args:
        config: of the training whose model predicts, and how.
        frame: with an image.
        detections: of the frame that get masks.
        device: where.
    """
    model, _ = build_model(replace(config, weights=""), Processes(rank=0, world=1, device=device))
    random_weights.settle(model)
    random_weights.expect_cells(model)
    predictor = Predictor([model], config.categories, replace(config.predict, max_cells=detections))

    def one() -> None:
        list(predict_frames(predictor, [frame]))

    if device.type == "cuda":
        one()
    return _taken(one, device)


def loading(config: TrainConfig, frames: Sequence[Frame]) -> Loading:
    """How fast one core prepares images for a training, by its own loader.

    The core's own time counts, so that other processes on this machine do not.
    """
    here = Processes(rank=0, world=1, device=torch.device("cpu"))
    threads, before = cv2.getNumThreads(), here.memory()["host_gib"]
    cv2.setNumThreads(0)
    batches = iter(build_loader(replace(config, images_per_batch=1, accumulate=1, workers=0), here, frames))
    next(batches)
    start, count = time.process_time(), 0
    while count < _LOADED or time.process_time() - start < _LOADING_SECONDS:
        next(batches)
        count += 1
    seconds = time.process_time() - start
    cv2.setNumThreads(threads)
    return Loading(count / seconds, max(here.memory()["host_gib"] - before, 0.1))


def _taken(work: Callable[[], object], device: torch.device) -> Measured:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    return Measured(seconds, _gpu_gib(device) if on_gpu else None)


def _gpu_gib(device: torch.device) -> float:
    """What the GPU has no more free, CUDA's own memory included, at the highest point of the allocator."""
    free, total = torch.cuda.mem_get_info(device)
    outside = total - free - torch.cuda.memory_reserved(device)
    return (outside + torch.cuda.max_memory_reserved(device)) / 2**30
