"""From weights to instances: whole-frame inference, and pseudo labels."""

from kitlib.predict.config import PredictConfig, PredictJob
from kitlib.predict.devices import gpu_count
from kitlib.predict.job import run

__all__ = ["PredictConfig", "PredictJob", "gpu_count", "run"]
