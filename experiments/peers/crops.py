"""What the two Mask R-CNNs share: training crops, resized, turned and mirrored, and the steps of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from runner import Clock, Image, median_diameter
from torch import Tensor, nn

#: Side of a crop as the network sees it.
SIDE = 256
#: The diameter, in pixels, to which the median training cell is resized: that of the middle anchors.
DIAMETER = 32.0
ANCHORS = (8, 16, 32, 64, 128)
_JITTER = (0.7, 1.4)
_CENTRED_ON_A_CELL = 0.85
_LEAST_AREA = 16
_BATCH = 2
_LEARNING_RATE = 4e-4


class Crop(NamedTuple):
    """A crop.

    Attributes:
        pixels: (SIDE, SIDE) float32 in 0..255.
        masks: (N, SIDE, SIDE) bool, at least one.
        boxes: (N, 4) float32: x0, y0, x1, y1, the last two beyond the cell.
    """

    pixels: NDArray[np.float32]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]


def scale(training: Sequence[Image]) -> float:
    """The factor that makes the median training cell ``DIAMETER`` pixels wide, between 0.5 and 3."""
    return float(np.clip(DIAMETER / median_diameter(training), 0.5, 3))


def grey_levels(training: Sequence[Image]) -> tuple[float, float]:
    """Mean and standard deviation of the pixels."""
    pixels = np.concatenate([image.pixels.ravel() for image in training])
    return float(pixels.mean()), float(pixels.std())


def crops(training: Sequence[Image], seed: int) -> Iterator[Crop]:
    """Crops without end, of every image in turn, in a new order each time."""
    rng, factor = np.random.default_rng(seed), scale(training)
    while True:
        for number in rng.permutation(len(training)):
            crop = _crop(training[number], factor * np.exp(rng.uniform(*np.log(_JITTER))), rng)
            if crop is not None:
                yield crop


def fit(
    model: nn.Module,
    losses: Callable[[Sequence[Crop]], Mapping[str, Tensor]],
    training: Sequence[Image],
    clock: Clock,
) -> None:
    """Train with AdamW, two crops a step, until the time is up: SGD learns little in so few steps.

    Args:
        model: in training mode.
        losses: of the model, by name, for a batch.
        training: the images.
        clock: of the training.
    """
    optimizer = torch.optim.AdamW(model.parameters(), _LEARNING_RATE, weight_decay=0.01)
    batches = crops(training, seed=0)
    while clock.step():
        found = losses([next(batches) for _ in range(_BATCH)])
        optimizer.zero_grad()
        sum(found.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * clock.rate()
        optimizer.step()


def _crop(image: Image, factor: float, rng: np.random.Generator) -> Crop | None:
    """A crop at a random place and in a random position; None where it shows no cell."""
    side = round(SIDE / factor)
    y, x = _corner(image.labels, side, rng)
    window = (slice(y, y + side), slice(x, x + side))
    missing = [(0, side - length) for length in image.labels[window].shape]
    pixels = np.pad(image.pixels[window], missing, constant_values=int(np.median(image.pixels)))
    labels = np.pad(image.labels[window], missing)
    pixels = cv2.resize(pixels.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    turns, mirrored = rng.integers(4), rng.random() < 0.5
    pixels, labels = (np.rot90(part, turns) for part in (pixels, labels))
    if mirrored:
        pixels, labels = pixels[::-1], labels[::-1]
    pixels = (pixels - pixels.mean()) * rng.uniform(0.8, 1.2) + pixels.mean() * rng.uniform(0.9, 1.1)
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    masks = labels == numbers[areas >= _LEAST_AREA][:, None, None]
    if not len(masks):
        return None
    return Crop(np.ascontiguousarray(pixels, np.float32), masks, _boxes(masks))


def _corner(labels: NDArray[np.int32], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of the upper left pixel: anywhere, or where a cell comes to lie in the crop."""
    free = [max(length - side, 0) for length in labels.shape]
    if labels.any() and rng.random() < _CENTRED_ON_A_CELL:
        places = np.argwhere(labels == rng.choice(np.unique(labels)[1:]))
        wanted = places.mean(0) - side * rng.uniform(0.3, 0.7, 2)
        y, x = np.clip(wanted.astype(int), 0, free).tolist()
        return y, x
    return int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    spans = []
    for axis in (1, 2):
        shown = masks.any(axis=axis)
        spans += [shown.argmax(1), shown.shape[1] - shown[:, ::-1].argmax(1)]
    return np.stack([spans[0], spans[2], spans[1], spans[3]], axis=1).astype(np.float32)
