"""What a model's mask heads draw in the right boxes: those of annotated cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from kitlib.masks import rle
from kitlib.predict import fuse, models
from kitlib.predict.cells import to_cells
from kitlib.predict.detections import Detections
from kitlib.predict.predictor import Image, Predictor
from kitlib.predict.views import View, views
from kitlib.records import Cell, Frame
from kitlib.runtime.gpus import ran_out_of_memory


def draw(predictor: Predictor, image: Image, frame: Frame) -> tuple[Cell, ...]:
    """The masks of a frame's own cells as the first model draws them in their tight boxes.

    One look is enough: the first scale that the predictor has for the frame's type, as it is, in its tiles
    where it has some. A cell that overlaps two tiles is drawn in the one whose middle it is nearer to.

    Args:
        predictor: its model, types and settings; masks are cut at the first candidate mask threshold.
        image: the (H, W) grey levels.
        frame: with its annotated cells, of types that the model knows.

    Returns:
        A cell of the same type for each, in any order; one in whose box no pixel reaches the mask threshold
        is left out. None where memory is short.
    """
    given = predictor.suited_to(frame.category)
    cuts = given.candidate_mask_thresholds
    config = replace(
        given,
        scales=given.scales[:1],
        scales_by_type={},
        tta=("none",),
        mask_threshold={"default": cuts[0]} if cuts else given.mask_threshold,
        candidate_mask_thresholds=(),
        max_cells=max(len(frame.cells), 1),
    )
    try:
        with models.ready(predictor.models[:1], config.score_floor, config.max_cells, amp=config.amp):
            found = [*_drawn(predictor, image, frame, views(config, *image.shape))]
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return ()
    if not found:
        return ()
    drawn = Detections.concat(found)
    height, width = image.shape
    return to_cells(drawn, fuse.alone(drawn), (height, width), config, predictor.categories).tables[0]


def _drawn(predictor: Predictor, image: Image, frame: Frame, looks: list[View]) -> Iterator[Detections]:
    """The boxes of the cells that each view owns, as detections with a score of 1, and the masks in them."""
    boxes = rle.boxes([cell.mask for cell in frame.cells]).astype(np.float64)
    classes = np.array([predictor.categories.index(str(cell.category)) for cell in frame.cells], np.int64)
    for view in looks:
        inside = view.owns(boxes)
        if not inside.any():
            continue
        given = Instances(view.shape)
        given.pred_boxes = Boxes(torch.from_numpy(view.resized(boxes[inside])).float())
        given.pred_classes = torch.from_numpy(classes[inside])
        squares = models.masks_in(predictor.models[0], view.image(image), given)
        number = len(squares)
        yield Detections(
            boxes[inside], np.ones(number), classes[inside], squares, np.full(number, view.source)
        )
