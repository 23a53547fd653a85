"""From a configuration to a trainer, in one of the training's processes."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kitlib import metric
from kitlib.errors import KitError, unknown
from kitlib.model import architecture, weights
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.predict.config import PredictConfig
from kitlib.predict.predictor import Predictor, predict_frames
from kitlib.records import Frame, read_frames
from kitlib.runtime.gpus import autocast
from kitlib.train import resume
from kitlib.train.config import TrainConfig
from kitlib.train.loader import TrainingLoader, loader
from kitlib.train.processes import Processes
from kitlib.train.sampler import TrainingSampler
from kitlib.train.trainer import Trainer

_logger = logging.getLogger(__name__)

# Thresholds are tuned after a training: its evaluations only compare weights with one another.
_POST_PROCESSING = PostConfig()


def build(config: TrainConfig, here: Processes) -> Trainer:
    """Everything that this process needs to train.

    Raises:
        KitError: frames or weights that cannot be read, or a batch that cannot be shared out.
    """
    train = read_frames(config.train)
    val = read_frames(config.val) if config.val else []
    if config.val and not val:
        raise KitError(f"{config.val} holds no frames to evaluate on; give some, or set val to nothing")
    model, notes = build_model(config, here)
    batches = build_loader(config, here, train)
    evaluate = None
    if val:
        evaluate = _Evaluator(val, config.categories, config.predict, here, config.amp)
    _seed(config.seed + here.rank)
    return Trainer(config, here, model, batches, evaluate, resume.data_fingerprint(train, val), notes)


def build_model(config: TrainConfig, here: Processes) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its first weights, the same on every process, and what came of loading them."""
    _seed(config.seed)
    network = architecture.build_model(config.model)
    notes: tuple[str, ...] = ()
    if here.main and not resume.exists(config.out):  # one process downloads; the others take its weights
        report = weights.load(network, config.weights)
        _logger.info("%s", report)
        notes = (report.summary, *report.advice) if report.source else report.advice
    model = here.fit_batch_norm(network).to(here.device).train()
    return model.to(memory_format=memory_format(config, here.device)), notes


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """How the model's tensors lie in memory.

    Tensor cores want channels_last, and on a CPU it is as fast or a little faster (tiny, r50). In full
    precision, grouped convolutions in that layout are many times slower on some GPUs.
    """
    chosen = config.memory_format
    if chosen == "auto":
        chosen = "contiguous" if device.type == "cuda" and config.amp == "off" else "channels_last"
    return torch.channels_last if chosen == "channels_last" else torch.contiguous_format


def build_loader(config: TrainConfig, here: Processes, frames: Sequence[Frame]) -> TrainingLoader:
    """This process's share of the batches.

    Raises:
        KitError: they cannot be shared out evenly, or a scale is given for a type that there is not.
    """
    types = {*config.categories, *(f.category for f in frames if f.category)}
    for name in config.augment.scale_by_type:
        if name not in types:
            raise unknown("type in augment.scale_by_type:", name, types)
    each = config.images_per_process(here.world)
    sampler = TrainingSampler(frames, config.sampler, config.seed, here.rank, here.world)
    return loader(frames, config.augment, config.categories, sampler, each, config.workers, config.seed)


@dataclass(frozen=True)
class _Evaluator:
    """Predicts, post-processes and scores the same frames again and again.

    Attributes:
        frames: the whole validation set, on every process.
        categories: the model's class names, in the order of its classes.
    """

    frames: Sequence[Frame]
    categories: tuple[str, ...]
    predict: PredictConfig
    here: Processes
    amp: str = "off"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """``map`` and, for each type of cell, ``map/<type>``; the same on every process."""
        # Empty where there are fewer frames than processes.
        share = self.frames[self.here.rank :: self.here.world]
        with autocast(self.here.device, self.amp):
            found = predict_frames(Predictor([model], self.categories, self.predict), share)
            cells = [thresholds.apply(frame, _POST_PROCESSING) for frame in found]
        predictions = [frame for part in self.here.gather(cells) for frame in part]
        score = metric.score(self.frames, predictions) if self.here.main else None
        row = {} if score is None else {"map": score.mean}
        row |= {f"map/{k}": v for k, v in score.by_category.items()} if score else {}
        return self.here.share(row)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
