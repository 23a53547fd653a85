"""A few small frames of bright and dark ellipses, and a model small enough to train within seconds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kitlib.inputs.config import AugmentConfig
from kitlib.masks import rle
from kitlib.model.presets import ModelConfig
from kitlib.records import Cell, Frame, write_frames
from kitlib.train.config import OptimConfig, TrainConfig
from kitlib.train.processes import Processes
from kitlib.train.schedule import ScheduleConfig

SIDE = 64
CATEGORIES = ("bright", "dark")
MICRO = ModelConfig(
    "tiny",
    num_classes=2,
    options={
        "fpn_channels": 32,
        "rpn_pre_nms_topk": [50, 50],
        "rpn_post_nms_topk": [20, 20],
        "rpn_batch": 64,
        "roi_batch": 24,
        "box_width": 32,
        "mask_convs": 1,
        "mask_width": 32,
    },
)


@pytest.fixture
def alone() -> Processes:
    """The only process of a training on the CPU."""
    return Processes(rank=0, world=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """The tensors here are small: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_frame(folder: Path, number: int) -> Frame:
    """A frame of five cells, all bright or all dark."""
    rng = np.random.default_rng(number)
    image, masks = np.full((SIDE, SIDE), 128, np.uint8), []
    category = CATEGORIES[number % 2]
    for _ in range(5):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        middle = tuple(int(v) for v in rng.integers(8, SIDE - 8, 2))
        cv2.ellipse(mask, middle, (7, 5), int(rng.integers(180)), 0, 360, 1, -1)
        image[mask > 0] = 170 if category == "bright" else 90
        masks.append(mask > 0)
    path = folder / f"frame{number}.png"
    cv2.imwrite(str(path), image)
    cells = tuple(Cell(rle.from_mask(mask), category) for mask in masks)
    return Frame(f"frame{number}", path, SIDE, SIDE, cells, category)


@pytest.fixture(scope="session")
def frames(tmp_path_factory) -> list[Frame]:
    """Six frames, three of each type."""
    folder = tmp_path_factory.mktemp("frames")
    return [make_frame(folder, number) for number in range(6)]


@pytest.fixture
def make_config(make_config_in, tmp_path):
    """Makes configurations: the micro model, four frames to train on, one to evaluate on."""
    return partial(make_config_in, tmp_path)


@pytest.fixture(scope="session")
def make_config_in(frames):
    """The same for a folder, which is the first argument."""

    def make(folder: Path, **fields) -> TrainConfig:
        values = {
            "out": str(folder / "out"),
            "train": str(write_frames(folder / "train.npz", frames[:4])),
            "val": str(write_frames(folder / "val.npz", frames[4:5])),
            "categories": CATEGORIES,
            "model": MICRO,
            "augment": AugmentConfig(brightness=0.1),
            "schedule": ScheduleConfig("cosine", max_lr=2e-3, min_lr=1e-5, warmup_iters=2),
            "optim": OptimConfig("adamw", clip_norm=5.0),
            "max_iter": 4,
            "workers": 0,
            "checkpoint_every": 0,
        }
        return TrainConfig(**values | fields)

    return make
