"""One or many models as one function from an image to its cells."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib.errors import KitError, unknown
from kitlib.post import thresholds
from kitlib.predict import fuse, network
from kitlib.predict.cells import to_cells
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections
from kitlib.predict.views import View, views
from kitlib.records import Cell
from kitlib.runtime.gpus import ran_out_of_memory

logger = logging.getLogger(__name__)
# As memory runs out and views one by one are still too much: the share of proposals and detections that are
# kept, and how many times smaller the sides of tiles are; a whole frame is then cut into tiles, too.
REDUCED = ((0.5, 1), (0.25, 1), (0.25, 2), (0.25, 4))


class Predictor:
    """Finds the cells of an image.

    Args:
        models: detectron2 models of the same classes, each on its device; they are handed back in the mode
            that they came in.
        categories: their class names, in the order of their classes.

    Attributes:
        spared: what the last image had to do without, as memory was short; "" where that sufficed.
    """

    def __init__(self, models: Sequence[nn.Module], categories: Sequence[str], config: PredictConfig):
        self.models, self.categories, self.config = tuple(models), tuple(categories), config
        for name in config.scales_by_type:
            if name not in self.categories:
                raise unknown("type in scales_by_type:", name, self.categories)
        self.spared = ""
        self.scout = self._scout() if config.scales_by_type else None

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Cell, ...]:
        """The cells of an (H, W) grey image of any size, best first, in its own pixels; they may overlap."""
        return self.at_levels(image)[0]

    def at_levels(self, image: NDArray[np.uint8]) -> list[tuple[Cell, ...]]:
        """The cells as ``__call__`` gives them, then at each of ``config.levels``.

        Where nothing reaches ``score_floor`` the best instance of all stays.
        """
        self.spared = ""
        config = self._suited(image)
        tables = self._tables(image, config)
        if not tables[0]:
            spare = self._tables(image, replace(config, score_floor=0.0))
            tables = [cells or others[:1] for cells, others in zip(tables, spare, strict=True)]
        return tables

    def _suited(self, image: NDArray[np.uint8]) -> PredictConfig:
        """The settings with the scales of the image's type, which a first look tells where it matters."""
        voted = thresholds.vote(self.scout(image)) if self.scout else None
        return replace(self.config, scales=self.config.scales_by_type.get(voted or "", self.config.scales))

    def _scout(self) -> Predictor:
        """Takes the first look: one model, one scale, one turn are enough to tell a type."""
        config = self.config
        once = replace(config, scales=config.scales[:1], tta=config.tta[:1], scales_by_type={}, levels=())
        return Predictor(self.models[:1], self.categories, once)

    def _tables(self, image: NDArray[np.uint8], config: PredictConfig) -> list[tuple[Cell, ...]]:
        one_by_one = [(1, 1.0, 1)] if config.batch > 1 else []
        for batch, share, smaller in [(config.batch, 1.0, 1), *one_by_one, *((1, *few) for few in REDUCED)]:
            looks = views(config, *image.shape, smaller)
            found = self._try(image, looks, replace(config, batch=batch), share)
            if found is not None:
                break
            logger.warning("out of memory: batch %d, %g of the proposals", batch, share)
        else:
            raise KitError(
                f"an image of {image.shape[1]} x {image.shape[0]} pixels needs more memory than there is, "
                "also in smaller tiles; make predict_config's scales, tile or batch smaller"
            )
        if batch < config.batch:  # nor will they fit the next time
            self.config = replace(self.config, batch=batch)
        if share < 1:
            cut = f", seen in tiles of 1/{smaller} of the sides" if smaller > 1 else ""
            self.spared = f"{1 - share:.0%} of the proposals{cut}"
        if len(looks) * len(self.models) == 1:
            fused = fuse.alone(found)
        else:
            fused = fuse.fuse(found, (looks[-1].source + 1) * len(self.models), image.shape, config)
        return to_cells(found, fused, image.shape, config, self.categories)

    def _try(
        self, image: NDArray[np.uint8], looks: Sequence[View], config: PredictConfig, share: float
    ) -> Detections | None:
        """``_look``; None when memory ran out. What the failed one held is free on return."""
        try:
            with network.ready(self.models, config.score_floor, config.max_cells, share, config.amp):
                return self._look(image, looks, config.batch)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return None

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
