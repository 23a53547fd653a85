"""Frames of bright ellipses, one with an ignored area, and models small in everything but their depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kitlib.inputs.config import AugmentConfig
from kitlib.masks import rle
from kitlib.model.presets import ModelConfig
from kitlib.records import Cell, Frame
from kitlib.train.config import OptimConfig, TrainConfig

SIDE = 96
TYPES = ("cort", "astro")
#: Few boxes, so that a step takes seconds on a CPU whatever the network.
FEW = {
    "rpn_pre_nms_topk": [60, 60],
    "rpn_post_nms_topk": [30, 30],
    "roi_batch": 24,
    "box_width": 64,
    "mask_convs": 1,
    "mask_width": 32,
}


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """One frame of each type; the second is pseudo-labelled with weight 0.5 and has an ignored area."""
    folder = tmp_path_factory.mktemp("frames")
    return [_frame(folder, number) for number in range(2)]


def _frame(folder: Path, number: int) -> Frame:
    rng, category = np.random.default_rng(number), TYPES[number]
    image, masks = np.full((SIDE, SIDE), 110, np.uint8), []
    for _ in range(6):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        middle = tuple(int(v) for v in rng.integers(12, SIDE - 12, 2))
        cv2.ellipse(mask, middle, (10, 7), int(rng.integers(180)), 0, 360, 1, -1)
        image[mask > 0] = 170
        masks.append(mask > 0)
    path = folder / f"frame{number}.png"
    cv2.imwrite(str(path), image)
    corner = np.zeros((SIDE, SIDE), bool)
    corner[: SIDE // 3, : SIDE // 2] = True
    ignore, weight = (rle.from_mask(corner), 0.5) if number else (None, 1.0)
    cells = tuple(Cell(rle.from_mask(mask), category) for mask in masks)
    return Frame(f"frame{number}", path, SIDE, SIDE, cells, category, weight=weight, ignore=ignore)


@pytest.fixture
def training(tmp_path: Path) -> Any:
    """Makes the configuration of a training: ``training("r50", amp="bf16")``."""

    def make(preset: str, **fields: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "out": str(tmp_path / "out"),
            "train": "",
            "categories": TYPES,
            "model": ModelConfig(preset, len(TYPES), options=FEW),
            "augment": AugmentConfig(scale=(1.0, 1.3), scale_by_type={"astro": (0.8, 1.2)}),
            "optim": OptimConfig("sgd", clip_norm=5.0),
            "images_per_batch": 2,
            "workers": 0,
        }
        return TrainConfig(**values | fields)

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """The tensors here are small: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
