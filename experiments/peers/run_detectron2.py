"""detectron2's stock Mask R-CNN from random weights: its zoo's configuration for that, which has GroupNorm.

ENVS/torch/bin/python experiments/peers/run_detectron2.py DATA OUT --minutes 5 10 20 30

Anchors, image sizes and the numbers of proposals and cells are those that suit cells, as in the kit.
``kitlib.model.compat`` lets detectron2 0.6 run with today's packages, so that the repository's root has to be
on PYTHONPATH; nothing else of the kit is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import crops
import cv2
import numpy as np
import torch
from crops import ANCHORS, SIDE, Crop
from numpy.typing import NDArray
from runner import Image, Instances, Predictor, Start, run
from torch import nn

from kitlib.model import compat

compat.apply()

from detectron2 import model_zoo  # noqa: E402
from detectron2.config import CfgNode  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.structures import BitMasks, Boxes  # noqa: E402
from detectron2.structures import Instances as Annotated  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

ZOO = "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"


def config(training: Sequence[Image]) -> CfgNode:
    """The zoo's, on the CPU, for one class and many small cells."""
    cfg = model_zoo.get_config(ZOO)
    mean, deviation = crops.grey_levels(training)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [mean] * 3, [deviation] * 3
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[side] for side in ANCHORS]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.TEST.DETECTIONS_PER_IMAGE = 800
    return cfg


def network(training: Sequence[Image]) -> nn.Module:
    """The network with random weights."""
    torch.set_num_threads(1)
    return build_model(config(training))


def fit(training: Sequence[Image], start: Start) -> None:
    """Train the network until the time is up."""
    torch.manual_seed(0)
    model = network(training).train()
    clock = start(lambda path: torch.save(model.state_dict(), path))
    with EventStorage():
        crops.fit(model, lambda batch: model([_annotated(crop) for crop in batch]), training, clock)


def _annotated(crop: Crop) -> dict:
    truth = Annotated((SIDE, SIDE))
    truth.gt_boxes = Boxes(torch.from_numpy(crop.boxes))
    truth.gt_classes = torch.zeros(len(crop.boxes), dtype=torch.int64)
    truth.gt_masks = BitMasks(torch.from_numpy(crop.masks))
    return {"image": _tensor(crop.pixels), "instances": truth}


def _tensor(pixels: NDArray) -> torch.Tensor:
    """A grey image as (3, H, W) in 0..255."""
    return torch.from_numpy(np.asarray(pixels, np.float32)).expand(3, -1, -1)


def load(path: Path, training: Sequence[Image]) -> Predictor:
    """Cells of whole images, resized as the training cells were on average."""
    model = network(training).eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    factor = crops.scale(training)

    @torch.inference_mode()
    def predict(pixels: NDArray[np.uint8]) -> Iterator[Instances]:
        height, width = pixels.shape
        resized = cv2.resize(pixels, (round(width * factor), round(height * factor)))
        found = model([{"image": _tensor(resized), "height": height, "width": width}])[0]["instances"]
        yield Instances("default", found.pred_masks.numpy(), found.scores.numpy())

    return predict


if __name__ == "__main__":
    run(fit, load, ("detectron2", "torchvision", "torch", "numpy"))
