"""One or many models as one function from an image to its cells, and frames predicted by it."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib.data.images import read_image
from kitlib.errors import KitError, unknown
from kitlib.predict import cells, models
from kitlib.predict.cells import Prediction, Seen
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
        (seen,) = self.see([image])
        found = cells.make(seen)
        return found if found.tables[0] else cells.make(seen, self.see_faint(image, seen))

    def see(self, images: Sequence[Image]) -> list[Seen]:
        """What the models detect in each of some images of one size, whose views share batches."""
        configs = [self._suited(image) for image in images]
        if len(images) > 1 and all(config == configs[0] for config in configs):
            looks = views(configs[0], *images[0].shape)
            seen = self._try(images, looks, configs[0], 1.0)
            if seen is not None:
                return seen
        return [self._see(image, config) for image, config in zip(images, configs, strict=True)]

    def see_faint(self, image: Image, seen: Seen) -> Seen:
        """What the models detect in an image in which they saw no cell, whatever the score."""
        return self._see(image, replace(seen.config, score_floor=0.0))

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

    def _see(self, image: Image, config: PredictConfig) -> Seen:
        """What is detected with as much as fits into memory."""
        height, width = image.shape
        one_by_one = [(1, 1.0, 1)] if config.batch > 1 else []
        for batch, share, smaller in [
            (config.batch, 1.0, 1),
            *one_by_one,
            *((1, *reduction) for reduction in _REDUCTIONS),
        ]:
            looks = views(config, height, width, smaller)
            seen = self._try([image], looks, replace(config, batch=batch), share)
            if seen is not None:
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
        self.reduced = ""
        if share < 1:
            cut = f", seen in tiles of 1/{smaller} of the sides" if smaller > 1 else ""
            self.reduced = f"{1 - share:.0%} of the proposals{cut}"
        return replace(seen[0], config=config, reduced=self.reduced)

    def _try(
        self, images: Sequence[Image], looks: Sequence[View], config: PredictConfig, share: float
    ) -> list[Seen] | None:
        """``_detect``; None when memory ran out. What the failed attempt held is free on return."""
        try:
            with models.ready(self.models, config.score_floor, config.max_cells, share, config.amp):
                return self._detect(images, looks, config)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return None

    def _detect(self, images: Sequence[Image], looks: Sequence[View], config: PredictConfig) -> list[Seen]:
        """What every model detects in every view of each image."""
        found: list[list[Detections]] = [[] for _ in images]
        limited = [False] * len(images)
        sources = looks[-1].source + 1
        for number, model in enumerate(self.models):
            for part in _batches(looks, len(images), config.batch):
                detected = models.infer(model, [view.image(images[place]) for view, place in part])
                for (view, place), instances in zip(part, detected, strict=True):
                    source = number * sources + view.source
                    found[place].append(view.back(Detections.from_instances(instances, source)))
                    limited[place] |= len(instances) >= config.max_cells
        return [
            Seen(
                found=Detections.concat(parts),
                sources=sources * len(self.models),
                alone=len(looks) * len(self.models) == 1,
                size=images[0].shape,
                config=config,
                categories=self.categories,
                limited=full,
            )
            for parts, full in zip(found, limited, strict=True)
        ]


def _batches(looks: Sequence[View], images: int, size: int) -> Iterator[list[tuple[View, int]]]:
    """Views of equal shape, each with the place of its image, ``size`` at a time."""
    for _, alike in itertools.groupby(looks, key=lambda view: view.shape):
        pairs = itertools.product(alike, range(images))
        while part := list(itertools.islice(pairs, max(size, 1))):
            yield part


def predict_frames(predictor: Callable[[Image], Prediction], frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames, in their order, with the predicted type and cells in place of their own.

    Raises:
        KitError: a frame without an image file, an unreadable image, or one of the wrong size.
    """
    for frame, image in read_ahead(frames):
        yield predictor(image()).frames(frame)[0]


def read_ahead(frames: Iterable[Frame], count: int = 1) -> Iterator[tuple[Frame, Callable[[], Image]]]:
    """Yield each frame, and a function that returns its image or raises why it cannot be read.

    The next ``count`` images are read meanwhile.
    """
    with ThreadPoolExecutor(1) as reader:
        ahead: deque[tuple[Frame, Callable[[], Image]]] = deque()
        for frame in frames:
            ahead.append((frame, reader.submit(_read, frame).result))
            if len(ahead) > count:
                yield ahead.popleft()
        yield from ahead


def _read(frame: Frame) -> Image:
    if frame.path is None:
        raise KitError(f"frame {frame.id} has no image file; predicting needs one")
    return read_image(frame.path, frame.height, frame.width)
