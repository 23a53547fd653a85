"""A small model with random weights, as a checkpoint of the training would keep it, and images to look at."""

import numpy as np
import pytest
import torch
from PIL import Image

from kitlib import model
from kitlib.records import Frame

CATEGORIES = ["astro", "cort", "shsy5y"]


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    return model.build("tiny", detections=40, rpn_post_nms_topk=(60, 60))


@pytest.fixture(scope="session")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights_best.pth"
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all"}
    options = {"detections": 40, "rpn_post_nms_topk": [60, 60]}
    torch.save(
        {
            "model_config": described | {"options": options},
            "categories": CATEGORIES,
            "iteration": 7,
            "model": network.state_dict(),
            "ema": None,
        },
        path,
    )
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Five frames of 96 x 128 with bright blobs."""
    rng = np.random.default_rng(0)
    folder, frames = tmp_path_factory.mktemp("images"), []
    y, x = np.mgrid[:96, :128]
    for number in range(5):
        grey = rng.normal(128, 4, (96, 128))
        for cx, cy in rng.uniform(10, 90, (6, 2)):
            grey += 40 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 50)
        path = folder / f"image{number}.png"
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
        frames.append(Frame(f"image{number}", path, 96, 128))
    return frames
