"""Frames through networks: how long the networks wait, and what quick mask heads are worth on a CPU."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import bench_predict
import numpy as np
import torch
from harness import Row, race
from PIL import Image
from torch import nn

from kitlib import model
from kitlib.model import heads
from kitlib.predict import pipeline
from kitlib.predict.budget import Budget, plans
from kitlib.predict.config import PredictConfig
from kitlib.predict.finish import Numbered
from kitlib.predict.predictor import Predictor
from kitlib.records import Frame

CONFIG = PredictConfig(tta=("none", "flip_h", "flip_v", "rot180"), batch=4)
FRAMES = 24
CELLS = 300
SECONDS = 0.15


class Simulated(nn.Module):
    """A network on a device of its own, which needs a known time for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = 0.0

    def inference(self, inputs: list, do_postprocess: bool = True) -> list:
        """The same crowd in every image."""
        begun = time.perf_counter()
        time.sleep(SECONDS * len(inputs))
        self.busy += time.perf_counter() - begun
        return [bench_predict.instances(CELLS)] * len(inputs)


def frames(folder: Path) -> list[Numbered]:
    """Grey images of the competition's size."""
    found = []
    for number in range(FRAMES):
        path = folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(100, 156, bench_predict.SIZE, np.uint8)
        Image.fromarray(noise).save(path)
        found.append(Numbered(number, Frame(str(number), path, *bench_predict.SIZE), False))
    return found


def simulated(workers: int) -> tuple[float, float]:
    """Seconds for all frames, and the share of them in which the network waits, in percent."""
    network = Simulated()
    config = replace(CONFIG, workers=workers)
    predictor = Predictor([network], ("astro", "cort", "shsy5y"), config)
    with tempfile.TemporaryDirectory() as folder:
        given = frames(Path(folder))
        pixels = [bench_predict.SIZE[0] * bench_predict.SIZE[1]] * len(given)
        begun = time.perf_counter()
        pipeline.predict(given, {"": predictor}, Budget(plans(config, 1), pixels, None), Path(folder))
        seconds = time.perf_counter() - begun
    return seconds, 100 * (1 - network.busy / seconds)


def four_views() -> tuple[float, float]:
    """Seconds for a frame in four views, with the mask heads as they are and as detectron2 has them."""
    torch.manual_seed(0)
    network = model.build("tiny", detections=200)
    predictor = Predictor([network], ("astro", "cort", "shsy5y"), replace(CONFIG, score_floor=0.0, batch=1))
    image = np.random.default_rng(0).integers(100, 156, bench_predict.SIZE, np.uint8)
    stock = heads.MaskRCNNConvUpsampleHead.layers

    def theirs() -> None:
        with (
            mock.patch.object(heads.IgnoringMaskHead, "layers", stock),
            mock.patch.object(heads, "CPU_CHUNK", heads.CHUNK),
        ):
            predictor(image)

    return race(lambda: predictor(image), theirs, rounds=3)


def rows():
    """The rows of this module."""
    work = f"{FRAMES} frames in 4 views of {CELLS} cells, {SECONDS} s a view that leave the CPU free"
    (ours, idle), (peer, idle_before) = simulated(-1), simulated(0)
    yield Row("prediction pipeline", f"{work}; peer: one process", ours, peer)
    yield Row("idle network", f"{work}; {idle_before:.0f} % in one process", idle, unit="%", bar=10)
    yield Row("four views", "tiny, 200 cells a view; peer: detectron2's mask heads", *four_views(), bar=1.2)
