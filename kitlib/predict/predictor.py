"""One or many models as one function from an image to its cells, and frames predicted by it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib.data.images import read_image
from kitlib.errors import KitError, unknown
from kitlib.predict import fuse, models
from kitlib.predict.cells import Prediction, to_cells
from kitlib.predict.config import PredictConfig
from kitlib.predict.detections import Detections
from kitlib.predict.views import View, views
from kitlib.records import Frame
from kitlib.runtime.gpus import ran_out_of_memory

_logger = logging.getLogger(__name__)
Image = NDArray[np.uint8]
#: What is tried when memory runs out even with one view at a time: the share of proposals and detections
#: that is left, and the divisor of the sides of tiles, or of frames where there are no tiles.
_REDUCTIONS = ((0.5, 1), (0.25, 1), (0.25, 2), (0.25, 4))


class _Detected(NamedTuple):
    """What all models detect in all views, and whether ``max_cells`` may have left out some of a view."""

    all: Detections
    limited: bool


class Predictor:
    """Finds the cells of an image.

    Args:
        models: detectron2 models of the same classes, each on its device; they are handed back in the mode
            that they came in.
        categories: their class names, in the order of their classes.
        config: how the image is predicted.

    Attributes:
        reduced: what the last image had to do without, as memory was short; "" where that sufficed.
    """

    def __init__(self, models: Sequence[nn.Module], categories: Sequence[str], config: PredictConfig):
        self.models, self.categories, self.config = tuple(models), tuple(categories), config
        for name in config.scales_by_type:
            if name not in self.categories:
                raise unknown("type in scales_by_type:", name, self.categories)
        self.reduced = ""
        self.first_look = self._first_look() if config.scales_by_type else None

    def __call__(self, image: Image) -> Prediction:
        """The type and the cells of an (H, W) grey image of any size, in its own pixels; cells may overlap.

        Where no instance reaches ``score_floor`` the best one of all stays.
        """
        self.reduced = ""
        config = self._suited(image)
        found = self._predict(image, config)
        if found.tables[0]:
            return found
        anything = self._predict(image, replace(config, score_floor=0.0))
        tables = [cells or faint[:1] for cells, faint in zip(found.tables, anything.tables, strict=True)]
        return Prediction(anything.category, tables)

    def _suited(self, image: Image) -> PredictConfig:
        """The settings with the scales of the image's type, where these differ by type."""
        if self.first_look is None:
            return self.config
        return self.suited_to(self.first_look(image).category)

    def suited_to(self, category: str | None) -> PredictConfig:
        """The settings with the scales of a type."""
        return replace(self.config, scales=self.config.scales_by_type.get(category or "", self.config.scales))

    def _first_look(self) -> Predictor:
        """A predictor of an image's type: one model, one scale and one orientation are enough."""
        config = self.config
        once = replace(
            config,
            scales=config.scales[:1],
            tta=config.tta[:1],
            scales_by_type={},
            candidate_mask_thresholds=(),
        )
        return Predictor(self.models[:1], self.categories, once)

    def _predict(self, image: Image, config: PredictConfig) -> Prediction:
        """The prediction with as much as fits into memory."""
        height, width = image.shape
        one_by_one = [(1, 1.0, 1)] if config.batch > 1 else []
        for batch, share, smaller in [
            (config.batch, 1.0, 1),
            *one_by_one,
            *((1, *reduction) for reduction in _REDUCTIONS),
        ]:
            looks = views(config, height, width, smaller)
            detected = self._try(image, looks, replace(config, batch=batch), share)
            if detected is not None:
                break
            _logger.warning("out of memory: batch %d, %g of the proposals", batch, share)
        else:
            raise KitError(
                f"an image of {width} x {height} pixels needs more memory than there is, "
                "also in smaller tiles; make predict_config's scales, tile or batch smaller"
            )
        if batch < config.batch:
            # Nor will as many views fit into memory the next time.
            self.config = replace(self.config, batch=batch)
        if share < 1:
            cut = f", seen in tiles of 1/{smaller} of the sides" if smaller > 1 else ""
            self.reduced = f"{1 - share:.0%} of the proposals{cut}"
        found = detected.all
        if len(looks) * len(self.models) == 1:
            fused = fuse.alone(found)
        else:
            fused = fuse.fuse(found, (looks[-1].source + 1) * len(self.models), (height, width), config)
        number = int(np.count_nonzero(fused.scores >= config.score_floor))
        prediction = to_cells(found, fused, (height, width), config, self.categories)
        return prediction._replace(limited=detected.limited or number > config.max_cells)

    def _try(
        self, image: Image, looks: Sequence[View], config: PredictConfig, share: float
    ) -> _Detected | None:
        """``_detect``; None when memory ran out. What the failed attempt held is free on return."""
        try:
            with models.ready(self.models, config.score_floor, config.max_cells, share, config.amp):
                return self._detect(image, looks, config)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return None

    def _detect(self, image: Image, looks: Sequence[View], config: PredictConfig) -> _Detected:
        """What every model detects in every view."""
        found, limited = [], False
        sources = looks[-1].source + 1
        for number, model in enumerate(self.models):
            for part in _batches(looks, config.batch):
                detected = models.infer(model, [view.image(image) for view in part])
                for view, instances in zip(part, detected, strict=True):
                    source = number * sources + view.source
                    found.append(view.back(Detections.from_instances(instances, source)))
                    limited |= len(instances) >= config.max_cells
        return _Detected(Detections.concat(found), limited)


def _batches(looks: Sequence[View], size: int) -> Iterator[list[View]]:
    """Views of equal shape, ``size`` at a time."""
    for _, alike in itertools.groupby(looks, key=lambda view: view.shape):
        while part := list(itertools.islice(alike, max(size, 1))):
            yield part


def predict_frames(predictor: Callable[[Image], Prediction], frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames, in their order, with the predicted type and cells in place of their own.

    Raises:
        KitError: a frame without an image file, an unreadable image, or one of the wrong size.
    """
    for frame, image in read_ahead(frames):
        yield predictor(image()).frames(frame)[0]


def read_ahead(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Callable[[], Image]]]:
    """Yield each frame, and a function that returns its image or raises why it cannot be read.

    The next image is read meanwhile.
    """
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for frame in frames:
            this, ahead = ahead, (frame, reader.submit(_read, frame).result)
            if this is not None:
                yield this
        if ahead is not None:
            yield ahead


def _read(frame: Frame) -> Image:
    if frame.path is None:
        raise KitError(f"frame {frame.id} has no image file; predicting needs one")
    return read_image(frame.path, frame.height, frame.width)
