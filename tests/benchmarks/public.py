"""How public notebooks of the competition handle masks: what the kit's own ways are measured against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

SIZE = (520, 704)


def rle_decode(annotation: str, shape: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """An annotation's pixels; from stackoverflow by way of most notebooks."""
    numbers = annotation.split()
    starts, lengths = (np.asarray(part, dtype=int) for part in (numbers[0::2], numbers[1::2]))
    starts -= 1
    image = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    for low, high in zip(starts, starts + lengths, strict=True):
        image[low:high] = 1
    return image.reshape(shape)


def rle_encode(mask: NDArray) -> str:
    """The annotation of a mask's pixels; from the same notebooks."""
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[0::2]
    return " ".join(str(x) for x in runs)


def label_map(annotations: Iterable[str]) -> NDArray[np.int64]:
    """All cells of a frame in one array; later cells cover earlier ones."""
    labels = np.zeros(SIZE, int)
    for number, annotation in enumerate(annotations, 1):
        labels[rle_decode(annotation) == 1] = number
    return labels


def compute_iou(labels: NDArray, predicted: NDArray) -> NDArray[np.float64]:
    """IoU of each true with each predicted cell of two label maps."""
    cells, found = len(np.unique(labels)), len(np.unique(predicted))
    intersection = np.histogram2d(labels.ravel(), predicted.ravel(), bins=(cells, found))[0]
    area = np.histogram(labels, bins=cells)[0][:, None]
    area_predicted = np.histogram(predicted, bins=found)[0][None]
    return (intersection / (area + area_predicted - intersection))[1:, 1:]


def score(truth: Sequence[str], predictions: Sequence[str]) -> float:
    """The metric of one image from its annotations."""
    iou = compute_iou(label_map(truth), label_map(predictions))
    precisions = []
    for threshold in np.arange(0.5, 1.0, 0.05):
        matches = iou > threshold
        tp = np.sum(matches.sum(axis=1) == 1)
        fp, fn = np.sum(matches.sum(axis=0) == 0), np.sum(matches.sum(axis=1) == 0)
        precisions.append(tp / (tp + fp + fn))
    return float(np.mean(precisions))
