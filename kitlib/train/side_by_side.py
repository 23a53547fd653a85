"""Trainings of several folds, one after the other or side by side with a share of the machine each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic, TypeVar

from kitlib.runtime.gpus import gpu_count
from kitlib.runtime.launch import Interrupted, Place
from kitlib.runtime.progress import Bar, Row
from kitlib.train import job
from kitlib.train.config import TrainConfig
from kitlib.train.job import Result

Key = TypeVar("Key")


def run_each(configs: Mapping[Key, TrainConfig], gpus: int = 0, at_once: int = 1) -> dict[Key, Result]:
    """``run`` of several trainings; the result of each under its key.

    Args:
        configs: the trainings, each with a folder of its own.
        gpus: as for ``run``, for all of them together.
        at_once: how many run side by side, on an equal share of the GPUs each, or of the cores where there
            are none; no more than there are GPUs.

    Raises:
        KitError: what stopped a training; the others are stopped then, and go on from their checkpoints when
            they are started again.
        Interrupted: the user interrupted them; none of their processes is left.
    """
    present = gpu_count(gpus, {"amp": next(iter(configs.values())).amp} if configs else {})
    at_once = min(at_once, len(configs), present or at_once)
    if at_once <= 1:
        return {key: job.run(config, gpus) for key, config in configs.items()}
    each = present // at_once
    if gpus < 0:
        each = min(config.most_processes(each) for config in configs.values())
    with _Together(configs, at_once) as together:
        return together.run(each)


class _Together(Generic[Key]):
    """Trainings side by side under one bar, which counts the iterations of all."""

    def __init__(self, configs: Mapping[Key, TrainConfig], at_once: int) -> None:
        self._configs, self._at_once = configs, at_once
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._failures: list[BaseException] = []
        self._iterations: dict[Key, int] = {}
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(at_once):
            self._free.put(number)
        total = sum(config.max_iter for config in configs.values())
        self._bar = Bar(total, f"{len(configs)} trainings, {at_once} at once", shown=())

    def __enter__(self) -> _Together[Key]:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def run(self, gpus: int) -> dict[Key, Result]:
        """Their results; each has as many GPUs, and 0 means a share of the cores."""
        with ThreadPoolExecutor(self._at_once) as threads:
            running = {key: threads.submit(self._train, key, gpus) for key in self._configs}
            try:
                wait(running.values())
            except KeyboardInterrupt:
                self._stop.set()
                raise Interrupted("interrupted; what was saved until then stays in their folders") from None
        if self._failures:
            # That of the first; the others were stopped because of it.
            raise self._failures[0]
        return {key: result for key, future in running.items() if (result := future.result())}

    def _train(self, key: Key, gpus: int) -> Result | None:
        if self._stop.is_set():
            return None
        config, number = self._configs[key], self._free.get()
        try:
            place = Place(number, self._at_once, self._stop)
            return job.start(config, gpus, lambda row: self._show(key, row), torchrun=None, place=place)
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()
            return None
        finally:
            self._free.put(number)

    def _show(self, key: Key, row: Row) -> None:
        name = Path(self._configs[key].out).name
        with self._lock:
            self._iterations[key] = row.get("iteration", self._iterations.get(key, 0))
            noted = {"note": f"{name}: {row['note']}"} if "note" in row else {}
            self._bar({"iteration": sum(self._iterations.values()), **noted})
