"""Training: configuration, schedules, the trainer and its processes.

``run`` and ``run_each`` are what the notebooks call; the processes that these start are
``python -m kitlib.train``. They alone import torch.
"""

from kitlib.train.config import OptimConfig, TrainConfig, TrainingSettings
from kitlib.train.events import curves
from kitlib.train.job import Result, run
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig
from kitlib.train.side_by_side import run_each

__all__ = [
    "OptimConfig",
    "Result",
    "SamplerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainingSettings",
    "curves",
    "run",
    "run_each",
]
