"""A small model with random weights, as a checkpoint of the training would keep it, images to look at, and
stand-ins for models whose output is known."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

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
    save_checkpoint(path, network)
    return path


def save_checkpoint(path, network, categories=CATEGORIES):
    described = {"preset": "tiny", "num_classes": len(categories), "mask_stages": "all"}
    options = {"detections": 40, "rpn_post_nms_topk": [60, 60]}
    torch.save(
        {
            "model_config": described | {"options": options},
            "categories": categories,
            "iteration": 7,
            "model": network.state_dict(),
            "ema": None,
        },
        path,
    )


@pytest.fixture(scope="session")
def other_checkpoints(tmp_path_factory):
    """Other weights of the same model, and a model of one class."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(1)
    options = {"detections": 40, "rpn_post_nms_topk": (60, 60)}
    save_checkpoint(folder / "second.pth", model.build("tiny", **options))
    save_checkpoint(folder / "one_class.pth", model.build("tiny", num_classes=1, **options), ["cell"])
    return folder / "second.pth", folder / "one_class.pth"


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


@pytest.fixture(scope="session")
def instances():
    """A function that makes a model's raw instances."""
    from detectron2.structures import Boxes, Instances

    def make(size, boxes, scores, classes=None, squares=None):
        n = len(boxes)
        return Instances(
            size,
            pred_boxes=Boxes(torch.as_tensor(np.array(boxes, np.float32)).reshape(n, 4)),
            scores=torch.tensor(scores, dtype=torch.float32),
            pred_classes=torch.tensor(classes or [0] * n, dtype=torch.int64),
            pred_masks=torch.ones(n, 1, 28, 28) if squares is None else torch.as_tensor(squares),
        )

    return make


@pytest.fixture
def known(instances):
    """A function that makes a model which finds what it is told to in whatever it sees."""

    class Known(nn.Module):
        def __init__(self, size, *found, squares=None):
            super().__init__()
            boxes, scores, classes = zip(*found, strict=True) if found else ((), (), ())
            self.answer, self.seen = instances(size, list(boxes), scores, list(classes), squares), []

        def inference(self, inputs, do_postprocess=True):
            assert not do_postprocess
            assert not self.training
            self.seen.append([tuple(i["image"].shape) for i in inputs])
            return [self.answer] * len(inputs)

    return Known


@pytest.fixture(scope="session")
def blobs(instances):
    """A model that finds each bright piece of an image exactly, be it turned, enlarged or cut."""

    class Blobs(nn.Module):
        def inference(self, inputs, do_postprocess=True):
            return [self.find(i["image"][0].numpy() > 127) for i in inputs]

        def find(self, bright):
            _, labels, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=8)
            boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()]
            squares = np.zeros((len(boxes), 1, 144, 144), np.float32)  # a multiple of most sides up to 48
            for k, (x0, y0, x1, y1) in enumerate(boxes):
                rows, columns = (np.arange(144) * side // 144 for side in (y1 - y0, x1 - x0))
                squares[k, 0] = (labels[y0:y1, x0:x1] == k + 1)[np.ix_(rows, columns)]
            return instances(bright.shape, boxes, [0.9] * len(boxes), squares=squares)

    return Blobs()
