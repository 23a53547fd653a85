"""Batches of training samples, made by worker processes, the same whatever their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.inputs.mapper import FramePool, Mapper
from kitlib.inputs.sample import PackedSample
from kitlib.records import Frame
from kitlib.runtime import heartbeat
from kitlib.train.sampler import TrainingSampler

Batch = list[dict[str, Any]]


class FrameDataset(Dataset[PackedSample | KitError]):
    """Samples by (index of a frame, number of the sample); number and seed settle every random choice.

    A KitError takes the place of its sample: raised in a worker process, it would reach the training with a
    traceback in its text.
    """

    def __init__(self, frames: Sequence[Frame], mapper: Mapper, seed: int = 0) -> None:
        self.frames, self.mapper, self.seed = frames, mapper, seed
        self.pool = FramePool(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> PackedSample | KitError:
        index, number = key
        rng = np.random.default_rng((self.seed, number))
        try:
            return self.mapper(self.frames[index], rng, self.pool)
        except KitError as error:
            return error


class TrainingLoader:
    """Endless batches; each one drawn moves the sampler on, whose state is thus what was consumed."""

    def __init__(
        self, dataset: FrameDataset, sampler: TrainingSampler, images_per_batch: int, workers: int = 0
    ) -> None:
        self.sampler = sampler
        self._batches = DataLoader(
            dataset,
            batch_size=images_per_batch,
            sampler=sampler,
            num_workers=workers,
            collate_fn=list,
            worker_init_fn=_start_worker,
            # Its draws, for the workers' seeds, must not move the generator that a resumed training restores.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.sampler.position += len(batch)
            yield [_unpack(sample) for sample in batch]


def loader(
    frames: Sequence[Frame],
    config: AugmentConfig,
    categories: tuple[str, ...],
    sampler: TrainingSampler,
    images_per_batch: int,
    workers: int = 0,
    seed: int = 0,
) -> TrainingLoader:
    """Training batches of one process, from where its sampler stands.

    Args:
        frames: the training set that the sampler was made of, in the same order.
        categories: the classes in the model's order.
        images_per_batch: samples a batch of this process.
        workers: worker processes; 0 makes the samples in this one. The batches are the same.
        seed: of the augmentations.
    """
    dataset = FrameDataset(frames, Mapper(config, categories), seed)
    return TrainingLoader(dataset, sampler, images_per_batch, workers)


def _unpack(sample: PackedSample | KitError) -> dict[str, Any]:
    if isinstance(sample, KitError):
        raise sample
    return sample.unpack()


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # OpenCV would start a thread a core in each of the workers
    heartbeat.start(f"image worker {number} of {heartbeat.process_name()}")
