"""The frames of one process on their way: read, seen by the networks, made into cells and written.

While the networks see a frame, the next ones are read, and those before are fused, pasted and encoded by
other processes. A few frames are on their way at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import itertools
import os
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from kitlib.predict import true_boxes
from kitlib.predict.budget import Budget
from kitlib.predict.cells import Seen
from kitlib.predict.config import PredictConfig
from kitlib.predict.finish import Finisher, Numbered, Task
from kitlib.predict.predictor import Image, Predictor, read_ahead
from kitlib.predict.views import views
from kitlib.records import Cell, Frame
from kitlib.runtime import launch
from kitlib.runtime.workers import Caller, started

_MOST_WORKERS = 4
"""More have nothing to do, however fast the GPU is."""
_FEW_FRAMES = 16
"""So few are done before a worker has started."""
_QUEUE = 2
"""Frames for each worker, in work and waiting."""


class _Waiting(NamedTuple):
    """A frame that a worker has, and what it takes to look at it again."""

    task: Task
    image: Image
    predictor: Predictor
    finished: Future[bool]


class _Finishers:
    """The workers that finish frames, or this process where there are none."""

    def __init__(self, folder: Path, callers: Sequence[Caller]) -> None:
        self.here = Finisher(folder)
        self._idle: queue.SimpleQueue[Caller] = queue.SimpleQueue()
        for caller in callers:
            self._idle.put(caller)
        self._count = len(callers)
        self._threads = ThreadPoolExecutor(max(self._count, 1))
        self._waiting: deque[_Waiting] = deque()

    def submit(self, task: Task, image: Image, predictor: Predictor) -> None:
        """Have a frame finished; while too many are waiting, wait for the first of them."""
        if not self._count:
            self._look_again(task, image, predictor, self.here.finish(task))
            return
        while len(self._waiting) >= _QUEUE * self._count:
            self._take_first()
        self._waiting.append(_Waiting(task, image, predictor, self._threads.submit(self._call, task)))

    def wait(self) -> None:
        """Until every frame is finished."""
        while self._waiting:
            self._take_first()

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, task: Task) -> bool:
        caller = self._idle.get()
        try:
            return caller.call("finish", task)
        finally:
            self._idle.put(caller)

    def _take_first(self) -> None:
        task, image, predictor, finished = self._waiting.popleft()
        self._look_again(task, image, predictor, finished.result())

    def _look_again(self, task: Task, image: Image, predictor: Predictor, done: bool) -> None:
        if done:
            return
        try:
            faint = predictor.see_faint(image, task.seen)
        except Exception as error:
            _failed(self.here, task.numbered.frame, error)
        else:
            self.submit(task._replace(faint=faint), image, predictor)


def _failed(finisher: Finisher, frame: Frame, error: Exception) -> None:
    """Skip a frame that the networks failed on, where they can go on with others."""
    if torch.cuda.is_initialized():
        # Raises where the process can predict no more; another one then takes over.
        torch.cuda.synchronize()
    finisher.failed(frame, error)


@contextmanager
def _finishers(folder: Path, count: int) -> Iterator[_Finishers]:
    """As many workers, which end with the block."""
    with started(Finisher, [(folder,)] * count) as callers:
        found = _Finishers(folder, callers)
        try:
            yield found
            found.wait()
        finally:
            found.close()


def _worker_count(config: PredictConfig, frames: int) -> int:
    """How many workers a process has for as many frames."""
    if config.workers >= 0:
        return config.workers
    if frames < _FEW_FRAMES:
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(min(launch.cores() // processes - 1, _MOST_WORKERS), 0)


def predict(
    frames: Sequence[Numbered],
    predictors: Mapping[str, Predictor],
    budget: Budget,
    folder: Path,
    in_true_boxes: bool = False,
) -> None:
    """Predict frames and write their parts and rows into a job's folder.

    Those of which a process died before come last, and each is finished before the next is begun, so that
    another death is no other frame's fault.

    Args:
        frames: in the order in which they are predicted.
        predictors: for each plan of the budget, by what it is without.
        budget: of these frames.
        folder: of the job.
        in_true_boxes: whether masks are drawn in the boxes of the frames' own cells as well.
    """
    config = next(iter(predictors.values())).config
    together = 1 if budget.until is not None else config.batch
    with _finishers(folder, _worker_count(config, len(frames))) as finishers:
        images = read_ahead((numbered.frame for numbered in frames), count=together)
        for group in _groups(frames, config, together):
            if group[0].suspect:
                finishers.wait()
            read = [image for _, image in itertools.islice(images, len(group))]
            _predict(group, read, predictors, budget, finishers, in_true_boxes)
            if group[0].suspect:
                finishers.wait()


def _groups(frames: Iterable[Numbered], config: PredictConfig, most: int) -> Iterator[list[Numbered]]:
    """Frames whose views go through a network together: some of equal size, one after the other."""

    def kind(numbered: Numbered) -> tuple[int, int, int]:
        # A suspect goes alone.
        return numbered.frame.height, numbered.frame.width, numbered.number if numbered.suspect else -1

    for (height, width, _), alike in itertools.groupby(frames, kind):
        shapes = [view.shape for view in views(config, height, width)]
        fewest = min(len(list(same)) for _, same in itertools.groupby(shapes))
        while group := list(itertools.islice(alike, max(most // fewest, 1))):
            yield group


def _predict(
    group: Sequence[Numbered],
    read: Sequence[Callable[[], Image]],
    predictors: Mapping[str, Predictor],
    budget: Budget,
    finishers: _Finishers,
    in_true_boxes: bool,
) -> None:
    """Predict a group of frames, of which ``read`` gives the images."""
    plan = budget.next(len(group))
    progress = finishers.here.progress
    images: list[tuple[Numbered, Image]] = []
    for numbered, image in zip(group, read, strict=True):
        progress.begun(numbered.frame)
        if plan is None:
            progress.skipped(numbered.frame, "there was no time left for it")
            continue
        try:
            images.append((numbered, image()))
        except Exception as error:
            finishers.here.failed(numbered.frame, error)
    if plan is None:
        return
    predictor = predictors[plan.without]
    seen = _see(images, predictor, finishers.here, in_true_boxes)
    seconds = budget.elapsed() / len(group)
    for numbered, pixels, what, drawn in seen:
        # The cells of a frame are many, and no longer needed.
        bare = numbered._replace(frame=replace(numbered.frame, cells=()))
        finishers.submit(Task(bare, what, seconds, plan.without, drawn=drawn), pixels, predictor)
    # What was waited for in a full queue counts as well: so fast frames are done in the end.
    budget.done(plan)


def _see(
    images: Sequence[tuple[Numbered, Image]], predictor: Predictor, finisher: Finisher, in_true_boxes: bool
) -> list[tuple[Numbered, Image, Seen, tuple[Cell, ...] | None]]:
    """What is detected in each image, and what is drawn in true boxes where that is asked for; where several
    images fail together, each is tried alone."""
    if not images:
        return []
    try:
        seen = predictor.see([image for _, image in images])
        drawn = [
            true_boxes.draw(predictor, image, numbered.frame) if in_true_boxes else None
            for numbered, image in images
        ]
    except Exception as error:
        if len(images) > 1:
            return [found for one in images for found in _see([one], predictor, finisher, in_true_boxes)]
        _failed(finisher, images[0][0].frame, error)
        return []
    return [
        (numbered, image, what, masks)
        for (numbered, image), what, masks in zip(images, seen, drawn, strict=True)
    ]
