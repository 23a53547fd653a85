"""Cellpose 3 from random weights: trained by its own function, with thresholds and diameters to choose from.

ENVS/cellpose/bin/python experiments/peers/run_cellpose.py DATA OUT --minutes 5 10 20 30
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellpose import dynamics, metrics, models, train, utils
from numpy.typing import NDArray
from runner import Image, Instances, Predictor, Start, run

CPU = torch.device("cpu")
CELL_PROBABILITIES = (0.0, -2.0, -1.0, 1.0)
# An epoch is one step: the time then holds the hundred epochs that the learning rate needs to fall.
BATCH = 8
# A diameter that differs from the training images' by less is not worth a second look.
SAME_DIAMETER = 1.2
EPOCHS_TO_TIME = 3


class TimeIsUp(Exception):
    """Ends Cellpose's training from within."""


def fit(training: Sequence[Image], start: Start) -> None:
    """Train in as many epochs as fit into the time, by the time that the first ones take."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = models.CellposeModel(gpu=False, pretrained_model=False).net
    save = net.save_model
    clock = start(lambda path: save(str(path)))
    flows = dynamics.labels_to_flows([image.labels for image in training], device=CPU)
    ends: list[float] = []
    _train(net, training, flows, EPOCHS_TO_TIME, lambda: ends.append(clock.spent))
    epochs = int((clock.minutes - clock.spent) / (ends[1] - ends[0]))

    def at_end_of_epoch() -> None:
        if not clock.step():
            raise TimeIsUp

    try:
        _train(net, training, flows, max(epochs, 1), at_end_of_epoch)
    except TimeIsUp:
        return
    net.eval()
    clock.finish()


def _train(
    net: Any,
    training: Sequence[Image],
    flows: list[NDArray],
    epochs: int,
    at_end_of_epoch: Callable[[], None],
) -> None:
    # Cellpose saves the network after every epoch: the only place where it can be interrupted.
    net.save_model = lambda _: at_end_of_epoch()
    with tempfile.TemporaryDirectory() as folder:
        train.train_seg(
            net,
            [image.pixels for image in training],
            flows,
            channels=[0, 0],
            batch_size=BATCH,
            n_epochs=epochs,
            nimg_per_epoch=BATCH,
            save_every=1,
            save_path=Path(folder),
            min_train_masks=1,
        )


def load(path: Path, training: Sequence[Image]) -> Predictor:
    """Cells by several cell probability thresholds, at the training images' diameter and at an image's own.

    The score of a cell is one minus its flow error: Cellpose's flow threshold of 0.4 is a score of 0.6.
    """
    torch.set_num_threads(1)
    model = models.CellposeModel(gpu=False, pretrained_model=str(path))

    def flows(pixels: NDArray[np.uint8], diameter: float) -> tuple[NDArray, NDArray]:
        found = model.eval(pixels, channels=[0, 0], diameter=diameter, compute_masks=False)
        return found[1][1], found[1][2]

    def cells(flow: NDArray, probability: NDArray, diameter: float, level: float) -> NDArray:
        return dynamics.resize_and_compute_masks(
            flow,
            probability,
            niter=int(200 * diameter / model.diam_mean),
            cellprob_threshold=level,
            # Cells are left out by their scores instead.
            flow_threshold=0,
            device=CPU,
        )

    def predict(pixels: NDArray[np.uint8]) -> Iterator[Instances]:
        mean = diameter = float(model.diam_labels)
        for name in ("mean diameter", "diameter of the image"):
            if name == "mean diameter" or max(mean / diameter, diameter / mean) > SAME_DIAMETER:
                found = flows(pixels, diameter)
                by_threshold = {
                    threshold: cells(*found, diameter, threshold) for threshold in CELL_PROBABILITIES
                }
            for level, labels in by_threshold.items():
                yield Instances(f"{name}, cell probability {level:g}", labels, _scores(labels, found[0]))
            if by_threshold[0.0].any():
                diameter = float(np.clip(utils.diameters(by_threshold[0.0])[0], mean / 2.5, mean * 2.5))

    return predict


def _scores(labels: NDArray, flow: NDArray) -> NDArray:
    if not labels.any():
        return np.zeros(0)
    errors, _ = metrics.flow_error(labels, flow, CPU)
    return np.clip(1 - errors, 0, 1)


if __name__ == "__main__":
    run(fit, load, ("cellpose", "torch", "numpy"))
