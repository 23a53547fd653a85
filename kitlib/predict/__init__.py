"""From weights to instances: inference, and pseudo labels."""

import kitlib.model  # noqa: F401  makes detectron2 importable before a module here imports it
from kitlib.predict.config import PredictConfig, PredictJob
from kitlib.predict.job import Predicted, run
from kitlib.runtime.gpus import gpu_count

__all__ = ["PredictConfig", "PredictJob", "Predicted", "gpu_count", "run"]
