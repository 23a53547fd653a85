"""What detectron2 gives as it comes, to stand beside the kit: Mask R-CNN R50-FPN with its own defaults.

python tests/benchmarks/stock.py FRAMES.npz TEST.npz OUT --minutes 30

Trains on FRAMES (``records.write_frames``) so long with detectron2's own trainer, mapper, counts and
schedule, from random weights as the kit's small model has them too, predicts TEST at score 0.5 and writes
OUT/submission.csv. Only what cannot be left out is added: weights must not be frozen when they are random,
and overlap, which makes a submission invalid, is given to the better instance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from kitlib import records
from kitlib.masks import rle
from kitlib.model import compat
from kitlib.post import overlap
from kitlib.records import Cell, Frame
from kitlib.submission import writer

compat.apply()

from detectron2 import model_zoo  # noqa: E402
from detectron2.config import CfgNode  # noqa: E402
from detectron2.data import DatasetMapper, build_detection_train_loader  # noqa: E402
from detectron2.engine import DefaultPredictor, SimpleTrainer  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.solver import build_lr_scheduler, build_optimizer  # noqa: E402
from detectron2.structures import BoxMode  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
SCORE = 0.5
BATCH = 2
LR = 0.02 * BATCH / 16  # detectron2's, scaled to the batch


def config(classes: int) -> CfgNode:
    """The zoo's, on the CPU, from random weights; BatchNorm, since frozen statistics diverge without them."""
    cfg = model_zoo.get_config(ZOO)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.RESNETS.NORM = 0, "BN"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = SCORE
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = BATCH, LR
    return cfg


def to_dict(frame: Frame, categories: list[str]) -> dict:
    """A frame in detectron2's own form."""
    boxes = rle.boxes([c.mask for c in frame.cells]).tolist()
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "segmentation": rle.to_coco(cell.mask),
            "category_id": categories.index(cell.category),
        }
        for cell, box in zip(frame.cells, boxes, strict=True)
    ]
    size = {"height": frame.height, "width": frame.width}
    return {"file_name": str(frame.path), "image_id": frame.id, **size, "annotations": annotations}


def train(cfg: CfgNode, frames: list[Frame], categories: list[str], seconds: float) -> tuple[dict, int]:
    """The weights after so many seconds of training, and how many iterations there were."""
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    schedule = build_lr_scheduler(cfg, optimizer)
    data = [to_dict(f, categories) for f in frames if f.cells]
    loader = build_detection_train_loader(
        data, mapper=DatasetMapper(cfg, is_train=True), total_batch_size=BATCH, num_workers=0
    )
    trainer, start = SimpleTrainer(model, loader, optimizer), time.monotonic()
    with EventStorage() as trainer.storage:
        trainer.iter = 0
        while time.monotonic() - start < seconds:
            trainer.run_step()
            schedule.step()
            trainer.iter += 1
            trainer.storage.step()
    return model.state_dict(), trainer.iter


def predict(predictor: DefaultPredictor, frame: Frame, categories: list[str]) -> Frame:
    """A frame with disjoint cells, as detectron2 predicts them."""
    found = predictor(cv2.imread(str(frame.path)))["instances"]
    masks = [rle.from_mask(np.asarray(mask)) for mask in found.pred_masks]
    names = [categories[c] for c in found.pred_classes.tolist()]
    cells = [Cell(*cell) for cell in zip(masks, names, found.scores.tolist(), strict=True)]
    disjoint = overlap.resolve(cells, frame.height, frame.width, max_clipped=1.0, split="keep_all")
    return records.Frame(frame.id, frame.path, frame.height, frame.width, tuple(disjoint))


def main() -> None:
    """Train, predict, write the submission."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("frames", type=Path)
    options.add_argument("test", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--minutes", type=float, default=30.0)
    given = options.parse_args()
    frames, test = records.read_frames(given.frames), records.read_frames(given.test)
    categories = sorted({c.category for f in frames for c in f.cells})
    torch.manual_seed(0)
    cfg = config(len(categories))
    weights, iterations = train(cfg, frames, categories, given.minutes * 60)
    predictor = DefaultPredictor(cfg)
    predictor.model.load_state_dict(weights)
    predicted = [predict(predictor, frame, categories) for frame in test]
    writer.write(given.out / "submission.csv", predicted, test)
    print(f"{iterations} iterations, {sum(len(f.cells) for f in predicted)} cells in {len(test)} images")


if __name__ == "__main__":
    main()
