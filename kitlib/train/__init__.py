"""Training: configuration, schedules, the trainer and its processes.

``run`` is what the notebooks call; the processes that it starts are ``python -m kitlib.train``. They alone
import torch.
"""

from kitlib.train.config import OptimConfig, Phase, TrainConfig, TrainingSettings, in_phases
from kitlib.train.events import curves
from kitlib.train.job import Result, run, run_all
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig

__all__ = [
    "OptimConfig",
    "Phase",
    "Result",
    "SamplerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainingSettings",
    "curves",
    "in_phases",
    "run",
    "run_all",
]
