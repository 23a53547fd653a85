"""From a crowded frame to training targets: detectron2's own mapper and bitmasks beside ours."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from harness import Row, peak_mib, race
from PIL import Image

from kitlib.data import tables
from kitlib.inputs.config import AugmentConfig
from kitlib.inputs.mapper import Mapper
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.masks import rle
from kitlib.model import compat
from kitlib.records import Cell, Frame

compat.apply()  # before detectron2 is imported
from detectron2.data import DatasetMapper  # noqa: E402
from detectron2.data import transforms as T  # noqa: E402
from detectron2.structures import BitMasks, BoxMode  # noqa: E402

SIZE = (520, 704)
CELLS = 790
POSITIVES = 500


@cache
def frame() -> Frame:
    """The real frame with the most cells where there is real data, else as many random ellipses; on noise."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    path = Path(tempfile.mkdtemp()) / "crowd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)).save(path)
    folder = os.environ.get("KIT_REAL_DATA")
    if folder:
        table = Path(folder) / "sartorius-real" / "extra" / "train_annotations_no_hidden.csv.gz"
        return replace(max(tables.read_cells(table), key=lambda f: len(f.cells)), path=path)
    return Frame("crowd", path, *SIZE, tuple(Cell(m, "shsy5y") for m in ellipses()), "shsy5y")


def ellipses() -> list[rle.RLE]:
    """Spindles of the size of SH-SY5Y cells."""
    rng, masks = np.random.default_rng(1), []
    for _ in range(CELLS):
        mask = np.zeros(SIZE, np.uint8)
        centre = int(rng.integers(SIZE[1])), int(rng.integers(SIZE[0]))
        cv2.ellipse(mask, centre, (int(rng.integers(8, 20)), 5), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        masks.append(rle.from_mask(mask))
    return masks


def prepare_ours():
    """The kit's mapper: twice the size, flips."""
    mapper, crowd = Mapper(AugmentConfig(scale=(2, 2), rot90=False), ("shsy5y",)), frame()
    rng = np.random.default_rng(0)
    return lambda: mapper(crowd, rng).unpack()


def prepare_theirs():
    """detectron2's mapper in its bitmask format, which is the one for RLEs: twice the size, flips."""
    crowd = frame()
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.Resize((2 * crowd.height, 2 * crowd.width)),
            T.RandomFlip(horizontal=True, vertical=False),
            T.RandomFlip(horizontal=False, vertical=True),
        ],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    boxes = rle.boxes([c.mask for c in crowd.cells]).tolist()
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "segmentation": rle.to_coco(cell.mask),
        }
        for cell, box in zip(crowd.cells, boxes, strict=True)
    ]
    sample = {"file_name": str(crowd.path), "height": crowd.height, "width": crowd.width}
    return lambda: mapper(sample | {"annotations": annotations})


@cache
def proposals() -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the cells that ``POSITIVES`` proposals were matched with, and the proposals."""
    rng, boxes = np.random.default_rng(0), rle.boxes([c.mask for c in frame().cells])
    chosen = rng.integers(0, len(boxes), POSITIVES)
    return torch.from_numpy(chosen), torch.from_numpy(
        boxes[chosen] + rng.normal(0, 2, (POSITIVES, 4))
    ).float()


def prepare_targets_ours():
    """Sampling and resizing the mask head's targets from box-local masks."""
    masks = LocalMasks.from_crops([(0, 0, rle.to_mask(c.mask)) for c in frame().cells], SIZE)
    chosen, boxes = proposals()
    return lambda: masks[chosen].crop_and_resize(boxes, 28)


def prepare_targets_theirs():
    """The same from detectron2's full-frame bitmasks."""
    masks = BitMasks(torch.from_numpy(np.stack([rle.to_mask(c.mask) for c in frame().cells])))
    chosen, boxes = proposals()
    return lambda: masks[chosen].crop_and_resize(boxes, 28)


def rows():
    """The rows of this module."""
    cells = len(frame().cells)
    work = f"a frame of {cells} cells at 2x, from RLE; detectron2's DatasetMapper, bitmask"
    yield Row("mapper", work, *race(prepare_ours(), prepare_theirs(), 2), bar=5)
    memory = peak_mib(prepare_ours), peak_mib(prepare_theirs)
    yield Row("memory of the mapper", work, *memory, unit="MiB", bar=10)
    work = f"{POSITIVES} positives of {cells} cells at 704 x 520; BitMasks.crop_and_resize"
    yield Row("mask targets", work, *race(prepare_targets_ours(), prepare_targets_theirs(), 3), bar=10)
    memory = peak_mib(prepare_targets_ours), peak_mib(prepare_targets_theirs)
    yield Row("memory of mask targets", work, *memory, unit="MiB", bar=10)
