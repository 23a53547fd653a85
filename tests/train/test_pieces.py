"""Batches in pieces: shares add up, and an image cut in two keeps its cells where they were."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from kitlib.errors import KitError
from kitlib.inputs.ignored import IgnoredArea
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.train import pieces


def sample(height=6, width=10):
    """Three cells: left, right, and one of 4 columns across the middle of which 1 lies left of it."""
    image = torch.arange(height * width, dtype=torch.uint8).reshape(1, height, width).expand(3, -1, -1)
    crops = [(1, 0, np.ones((2, 2))), (7, 3, np.ones((3, 2))), (4, 2, np.ones((2, 4)))]
    masks = LocalMasks.from_crops(crops, (height, width))
    boxes, classes = masks.get_bounding_boxes(), torch.tensor([0, 1, 2])
    instances = Instances((height, width), gt_boxes=boxes, gt_classes=classes, gt_masks=masks)
    return {"image": image, "instances": instances, "image_id": "x", "weight": 0.5}


def test_an_image_is_cut_across_its_longer_side():
    left, right = pieces.cut(sample())
    assert torch.equal(torch.cat([left["image"], right["image"]], dim=2), sample()["image"])
    assert left["instances"].image_size == right["instances"].image_size == (6, 5)
    # 25 % of the cell across the middle lies left of it, not more: it stays only on the right.
    assert left["instances"].gt_classes.tolist() == [0]
    assert left["instances"].gt_boxes.tensor.tolist() == [[1, 0, 3, 2]]
    assert right["instances"].gt_classes.tolist() == [1, 2]
    assert right["instances"].gt_boxes.tensor.tolist() == [[2, 3, 4, 6], [0, 2, 3, 4]]
    assert right["weight"] == 0.5


def test_the_ignored_area_is_cut_with_the_image():
    whole, mask = sample(), np.zeros((6, 10), bool)
    mask[2:5, 3:9] = True
    assert not pieces.cut(whole)[0]["instances"].has("gt_ignored")
    whole["instances"].gt_ignored = IgnoredArea.from_mask(mask, 3)
    for half, part in zip(pieces.cut(whole), (mask[:, :5], mask[:, 5:]), strict=True):
        area = half["instances"].gt_ignored
        assert len(area) == len(half["instances"])
        assert area.covers(Boxes([[0.0, 2, 2, 5], [3, 2, 5, 5]])).tolist() == [
            part[2:5, :2].mean() > 0.5,
            part[2:5, 3:].mean() > 0.5,
        ]


def test_a_high_image_is_cut_the_other_way():
    top, bottom = pieces.cut(sample(height=12))
    assert top["image"].shape == bottom["image"].shape == (3, 6, 10)
    assert top["instances"].gt_classes.tolist() == [0, 1, 2]
    assert len(bottom["instances"]) == 0


def test_pieces_share_the_batch():
    batch = [sample() for _ in range(4)]
    assert [(share, len(part)) for share, part in pieces.split(batch, 2)] == [(0.5, 2), (0.5, 2)]
    halves = pieces.smaller(pieces.split(batch[:3], 1))
    assert [(pytest.approx(share), len(part)) for share, part in halves] == [(1 / 3, 1), (2 / 3, 2)]
    quarters = pieces.smaller(pieces.split(batch[:2], 2))
    assert [share for share, _ in quarters] == [0.25] * 4
    assert all(part[0]["image"].shape == (3, 6, 5) for _, part in quarters)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(KitError, match="accumulate"):
        pieces.split([sample()] * 3, 2)
