"""From weights to instances: inference, and pseudo labels."""

import kitlib.model  # noqa: F401  mends detectron2's surroundings before a module here imports it
from kitlib.predict.config import PredictConfig, PredictJob
from kitlib.predict.devices import gpu_count
from kitlib.predict.job import Predicted, run

__all__ = ["PredictConfig", "PredictJob", "Predicted", "gpu_count", "run"]
