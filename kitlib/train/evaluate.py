"""The competition's metric on held-out frames, each process predicting its share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from kitlib import metric
from kitlib.post import thresholds
from kitlib.predict.config import PredictConfig
from kitlib.predict.infer import predict_frames
from kitlib.predict.predictor import Predictor
from kitlib.records import Frame
from kitlib.runtime.precision import autocast
from kitlib.train.processes import Processes

# Thresholds are tuned after a training: its evaluations only compare weights with one another.
_POST_PROCESSING = thresholds.PostConfig()


@dataclass(frozen=True)
class Evaluator:
    """Predicts, post-processes and scores the same frames again and again.

    Attributes:
        frames: the held-out frames, all of them, on every process.
        categories: the model's class names, in the order of its classes.
    """

    frames: Sequence[Frame]
    categories: tuple[str, ...]
    predict: PredictConfig
    here: Processes
    amp: str = "off"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """``map`` and, for each type of cell, ``map/<type>``; the same on every process."""
        share = self.frames[
            self.here.rank :: self.here.world
        ]  # empty where there are fewer frames than processes
        with autocast(self.here.device, self.amp):
            found = predict_frames(Predictor([model], self.categories, self.predict), share)
            cells = [thresholds.apply(frame, _POST_PROCESSING) for frame in found]
        predictions = [frame for part in self.here.gather(cells) for frame in part]
        score = metric.score(self.frames, predictions) if self.here.main else None
        row = {} if score is None else {"map": score.mean}
        row |= {f"map/{k}": v for k, v in score.by_category.items()} if score else {}
        return self.here.share(row)
