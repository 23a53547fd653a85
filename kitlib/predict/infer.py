"""Instances of whole frames, from a detectron2 model.

The model's raw output (boxes and small squares of probabilities, in pixels of the resized image) becomes
cells with masks in the frame's own pixels. detectron2's own post-processing, which makes a full-frame mask of
each instance, is not used: memory does not grow with the number of cells beyond their own area.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib import rle
from kitlib.data.images import read_image
from kitlib.errors import KitError
from kitlib.predict.config import PredictConfig
from kitlib.predict.paste import paste
from kitlib.records import Cell, Frame

if TYPE_CHECKING:
    from detectron2.structures import Instances


def predict_frames(
    model: nn.Module, frames: Iterable[Frame], config: PredictConfig, categories: Sequence[str]
) -> Iterator[Frame]:
    """Yield the frames, in their order, with the cells that the model finds in them in place of their own.

    Images are read one batch ahead. The model runs where its weights are, in evaluation mode, and is handed
    back in the mode that it came in.

    Args:
        categories: the model's class names, in the order of its classes.

    Raises:
        KitError: a frame without an image file, an unreadable image, or one of the wrong size.
    """
    batches = _batches(frames, max(config.batch, 1))
    with ThreadPoolExecutor(1) as reader:
        ahead = [(b, reader.submit(_read, b)) for b in itertools.islice(batches, 1)]
        while ahead:
            batch, images = ahead.pop()
            ahead = [(b, reader.submit(_read, b)) for b in itertools.islice(batches, 1)]
            found = predict_batch(model, images.result(), config, categories)
            yield from (replace(f, cells=cells) for f, cells in zip(batch, found, strict=True))


def predict_frame(
    model: nn.Module, image: NDArray[np.uint8], config: PredictConfig, categories: Sequence[str]
) -> tuple[Cell, ...]:
    """The cells of one (H, W) grey image, best first, their masks in its own pixels; they may overlap."""
    return predict_batch(model, [image], config, categories)[0]


def predict_batch(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], config: PredictConfig, categories: Sequence[str]
) -> list[tuple[Cell, ...]]:
    """The cells of each of several (H, W) grey images, as ``predict_frame``."""
    inputs = [{"image": _to_input(image, config.scales[0])} for image in images]
    with torch.inference_mode(), _evaluating(model), _limits(model, config):
        found = model.inference(inputs, do_postprocess=False)
    return [
        to_cells(instances, image.shape, config, categories)
        for instances, image in zip(found, images, strict=True)
    ]


def to_cells(
    instances: Instances, size: tuple[int, int], config: PredictConfig, categories: Sequence[str]
) -> tuple[Cell, ...]:
    """The cells that a model's raw instances stand for, best first.

    Args:
        instances: ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` (N, 1, S, S), probabilities
            within the boxes; in pixels of ``instances.image_size``, the image that the network saw.
        size: (height, width) of the frame.
    """
    height, width = size
    stretch = np.tile([width / instances.image_size[1], height / instances.image_size[0]], 2)
    boxes = instances.pred_boxes.tensor.double().cpu().numpy() * stretch
    scores = instances.scores.double().cpu().numpy()
    squares = instances.pred_masks.float().cpu().numpy()[:, 0]
    classes = instances.pred_classes.tolist()
    order = np.lexsort([np.arange(len(scores)), -scores])
    order = order[scores[order] >= config.score_floor][: config.max_cells]
    cells = []
    for i in order.tolist():
        patch = paste(squares[i], boxes[i], height, width)
        inside = patch.values >= config.mask_threshold["default"]
        if inside.any():
            mask = rle.from_crop(inside, patch.x, patch.y, height, width)
            certainty = float(patch.values[inside].mean())
            cells.append(Cell(mask, categories[classes[i]], float(scores[i]), certainty))
    return tuple(cells)


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    frames = iter(frames)
    while batch := list(itertools.islice(frames, size)):
        yield batch


def _read(batch: Sequence[Frame]) -> list[NDArray[np.uint8]]:
    bare = next((f.id for f in batch if f.path is None), None)
    if bare is not None:
        raise KitError(f"frame {bare} has no image file; predicting needs one")
    return [read_image(f.path, f.height, f.width) for f in batch]


def _to_input(image: NDArray[np.uint8], scale: float) -> torch.Tensor:
    """(3, h, w) uint8: the resized grey levels three times, as in training."""
    height, width = (max(round(side * scale), 1) for side in image.shape)
    if (height, width) != image.shape:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.array(image)).expand(3, -1, -1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _limits(model: nn.Module, config: PredictConfig) -> Iterator[None]:
    """Have the box heads throw away what would be thrown away later, before masks are made of it."""
    heads = [m for m in model.modules() if hasattr(m, "test_score_thresh")]
    before = [(h.test_score_thresh, h.test_topk_per_image) for h in heads]
    for head in heads:
        head.test_score_thresh, head.test_topk_per_image = config.score_floor, config.max_cells
    try:
        yield
    finally:
        for head, values in zip(heads, before, strict=True):
            head.test_score_thresh, head.test_topk_per_image = values
