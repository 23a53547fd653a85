"""StarDist from random weights: its own network, training data and NMS, with thresholds to choose from.

ENVS/stardist/bin/python experiments/peers/run_stardist.py DATA OUT --minutes 5 10 20 30
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from csbdeep.utils import normalize
from numpy.typing import NDArray
from runner import Clock, Image, Instances, Predictor, Start, run
from stardist.models import Config2D, StarDist2D

PATCH = 256
LEARNING_RATE = 3e-4
NMS_THRESHOLDS = (0.4, 0.3, 0.5)
# The lowest object probability of a candidate; what is kept of them is chosen later.
LOWEST_PROBABILITY = 0.15


def network() -> StarDist2D:
    """StarDist's defaults, with a grid of 2 as in its examples; it is kept in memory."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_patch_size=(PATCH, PATCH),
        train_learning_rate=LEARNING_RATE,
        train_reduce_lr=None,
        train_tensorboard=False,
        train_n_val_patches=1,
    )
    return StarDist2D(config, name=None, basedir=None)


class Watch(keras.callbacks.Callback):
    """Sets the learning rate by the time, and ends training when it is up."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.model.optimizer.learning_rate = LEARNING_RATE * self.clock.rate()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not self.clock.step():
            self.model.stop_training = True


def fit(training: Sequence[Image], start: Start) -> None:
    """Train with the augmentation of StarDist's examples."""
    keras.utils.set_random_seed(0)
    model = network()
    clock = start(lambda path: model.keras_model.save_weights(str(path)))
    pixels = [_padded(_normalized(image.pixels)) for image in training]
    labels = [_padded(image.labels) for image in training]
    model.prepare_for_training()
    model.callbacks.append(Watch(clock))
    model.train(
        pixels,
        labels,
        # StarDist wants some; its loss of one patch decides nothing here.
        validation_data=(pixels[:1], labels[:1]),
        augmenter=augmented,
        epochs=int(clock.minutes * 10) + 10,
        steps_per_epoch=50,
    )
    clock.finish()


def augmented(pixels: NDArray, labels: NDArray) -> tuple[NDArray, NDArray]:
    """A patch turned, mirrored, and with other brightness, contrast and noise."""
    turns, mirrored = np.random.randint(4), np.random.rand() < 0.5
    pixels, labels = (np.rot90(side, turns) for side in (pixels, labels))
    if mirrored:
        pixels, labels = pixels[::-1], labels[::-1]
    pixels = pixels * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    return pixels + 0.02 * np.random.rand() * np.random.normal(0, 1, pixels.shape), labels


def _normalized(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return normalize(pixels, 1, 99.8)


def _padded(side: NDArray) -> NDArray:
    """An image at least as large as a patch."""
    return np.pad(side, [(0, max(PATCH - length, 0)) for length in side.shape])


def load(path: Path, training: Sequence[Image]) -> Predictor:
    """Cells by several thresholds of non-maximum suppression, scored by object probability."""
    model = network()
    model.keras_model.load_weights(str(path))

    def predict(pixels: NDArray[np.uint8]) -> Iterator[Instances]:
        for threshold in NMS_THRESHOLDS:
            labels, details = model.predict_instances(
                _normalized(pixels), prob_thresh=LOWEST_PROBABILITY, nms_thresh=threshold
            )
            yield Instances(f"NMS {threshold:g}", labels, details["prob"])

    return predict


if __name__ == "__main__":
    run(fit, load, ("stardist", "tensorflow-cpu", "keras", "numpy"))
