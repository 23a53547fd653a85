"""torchvision's Mask R-CNN from random weights, with GroupNorm and anchors and numbers that suit cells.

ENVS/torch/bin/python experiments/peers/run_torchvision.py DATA OUT --minutes 5 10 20 30
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import crops
import numpy as np
import torch
from crops import ANCHORS, Crop
from numpy.typing import NDArray
from runner import Image, Instances, Predictor, Start, run
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform

MOST_CELLS = 800


def network(training: Sequence[Image]) -> MaskRCNN:
    """ResNet-50 with FPN, one class."""
    torch.set_num_threads(1)
    norm = partial(nn.GroupNorm, 32)
    mean, deviation = crops.grey_levels(training)
    return MaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm, trainable_layers=5),
        num_classes=2,
        rpn_anchor_generator=AnchorGenerator(tuple((side,) for side in ANCHORS), ((0.5, 1.0, 2.0),) * 5),
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=2000,
        rpn_pre_nms_top_n_test=4000,
        box_batch_size_per_image=128,
        box_detections_per_img=MOST_CELLS,
        # Pixels are given in 0..1.
        image_mean=[mean / 255] * 3,
        image_std=[deviation / 255] * 3,
        # Crops have their size already.
        _skip_resize=True,
    )


def fit(training: Sequence[Image], start: Start) -> None:
    """Train the network until the time is up."""
    torch.manual_seed(0)
    model = network(training).train()
    clock = start(lambda path: torch.save(model.state_dict(), path))

    def losses(batch: Sequence[Crop]) -> dict[str, torch.Tensor]:
        return model([_tensor(crop.pixels) for crop in batch], [_target(crop) for crop in batch])

    crops.fit(model, losses, training, clock)


def _tensor(pixels: NDArray) -> torch.Tensor:
    """A grey image as (3, H, W) in 0..1."""
    return torch.from_numpy(np.asarray(pixels, np.float32) / 255).expand(3, -1, -1)


def _target(crop: Crop) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.from_numpy(crop.boxes),
        "labels": torch.ones(len(crop.boxes), dtype=torch.int64),
        "masks": torch.from_numpy(crop.masks.astype(np.uint8)),
    }


def load(path: Path, training: Sequence[Image]) -> Predictor:
    """Cells of whole images, resized as the training cells were on average."""
    model = network(training).eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    factor = crops.scale(training)
    mean, deviation = model.transform.image_mean, model.transform.image_std

    @torch.inference_mode()
    def predict(pixels: NDArray[np.uint8]) -> Iterator[Instances]:
        shorter = round(min(pixels.shape) * factor)
        model.transform = GeneralizedRCNNTransform(shorter, 10**6, mean, deviation)
        (found,) = model([_tensor(pixels)])
        yield Instances("default", (found["masks"][:, 0] > 0.5).numpy(), found["scores"].numpy())

    return predict


if __name__ == "__main__":
    run(fit, load, ("torchvision", "torch", "numpy"))
