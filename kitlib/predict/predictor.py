"""One or many models as one function from an image to its cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kitlib.predict import fuse, network
from kitlib.predict.cells import to_cells
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections
from kitlib.predict.views import View, views
from kitlib.records import Cell


class Predictor:
    """Finds the cells of an image.

    Args:
        models: detectron2 models of the same classes, each on its device; they are handed back in the mode
            that they came in.
        categories: their class names, in the order of their classes.
    """

    def __init__(self, models: Sequence[nn.Module], categories: Sequence[str], config: PredictConfig):
        self.models, self.categories, self.config = tuple(models), tuple(categories), config

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Cell, ...]:
        """The cells of an (H, W) grey image of any size, best first, in its own pixels; they may overlap."""
        return self.at_levels(image)[0]

    def at_levels(self, image: NDArray[np.uint8]) -> list[tuple[Cell, ...]]:
        """The cells as ``__call__`` gives them, then at each of ``config.levels``.

        Where nothing reaches ``score_floor`` the best instance of all stays.
        """
        tables = self._tables(image, self.config)
        if not all(tables):
            spare = self._tables(image, replace(self.config, score_floor=0.0))
            tables = [cells or others[:1] for cells, others in zip(tables, spare, strict=True)]
        return tables

    def _tables(self, image: NDArray[np.uint8], config: PredictConfig) -> list[tuple[Cell, ...]]:
        looks = views(config, *image.shape)
        with network.ready(self.models, config.score_floor, config.max_cells):
            found = self._look(image, looks, config.batch)
        if len(looks) * len(self.models) == 1:
            fused = fuse.alone(found)
        else:
            fused = fuse.fuse(found, (looks[-1].source + 1) * len(self.models), image.shape, config)
        return to_cells(found, fused, image.shape, config, self.categories)

    def _look(self, image: NDArray[np.uint8], looks: Sequence[View], batch: int) -> Detections:
        """What every model detects in every view."""
        found = []
        sources = looks[-1].source + 1
        for number, model in enumerate(self.models):
            for part in _batches(looks, batch):
                seen = network.look(model, [view.image(image) for view in part])
                for view, instances in zip(part, seen, strict=True):
                    source = number * sources + view.source
                    found.append(view.back(Detections.from_instances(instances, source)))
        return Detections.concat(found)


def _batches(looks: Sequence[View], size: int) -> Iterator[list[View]]:
    """Views of equal shape, ``size`` at a time."""
    for _, alike in itertools.groupby(looks, key=lambda view: view.shape):
        while part := list(itertools.islice(alike, max(size, 1))):
            yield part
