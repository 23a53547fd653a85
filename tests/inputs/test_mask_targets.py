"""LocalMasks against full frames, and against detectron2's BitMasks wherever training touches them."""

from __future__ import annotations

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from kitlib.errors import KitError
from kitlib.inputs import mask_targets
from kitlib.inputs.mask_targets import LocalMasks

HEIGHT, WIDTH = 60, 90


def special_cases() -> np.ndarray:
    """(7, H, W): one pixel, full frame, empty, a hole, left top corner, right bottom corner, two parts."""
    full = np.zeros((7, HEIGHT, WIDTH), bool)
    full[0, 17, 33] = True
    full[1] = True
    full[3, 10:30, 20:50] = True
    full[3, 15:20, 30:40] = False
    full[4, :9, :7] = True
    full[5, -8:, -11:] = True
    full[6, 5:9, 5:9] = full[6, 40:44, 70:75] = True
    return full


def random_cells(number: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH, radius: int = 20):
    """(N, H, W) random ellipses, some over the edge; each has at least one pixel."""
    rng = np.random.default_rng(seed)
    full = np.zeros((number, height, width), np.uint8)
    for mask in full:
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(0, radius)), int(rng.integers(0, radius))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return full.astype(bool)


def of(full: np.ndarray) -> LocalMasks:
    return LocalMasks.from_crops([(0, 0, mask) for mask in full], full.shape[1:])


def to_full(masks: LocalMasks) -> np.ndarray:
    full = np.zeros((len(masks), *masks.image_size), bool)
    for i, ((x, y, w, h), start) in enumerate(zip(masks.boxes.tolist(), masks.offsets.tolist(), strict=True)):
        full[i, y : y + h, x : x + w] = masks.storage[start : start + w * h].view(h, w).numpy()
    return full


def on_the_verge(full: np.ndarray, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(N, size, size) bool: targets whose value before the threshold is 0.5 to five digits."""
    rois = torch.cat([torch.arange(len(boxes))[:, None], boxes], dim=1)
    values = ROIAlign((size, size), 1.0, 0, aligned=True)(torch.from_numpy(full)[:, None].float(), rois)
    return (values[:, 0] - 0.5).abs() < 1e-5


def around(masks: LocalMasks, jitter: float, seed: int = 0) -> torch.Tensor:
    """Boxes near the masks' own, clipped to the image as proposals are."""
    noise = np.random.default_rng(seed).normal(0, jitter, (len(masks), 4))
    boxes = masks.get_bounding_boxes().tensor + torch.from_numpy(noise).float()
    boxes = Boxes(
        torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    )
    boxes.clip(masks.image_size)
    return boxes.tensor


# -------------------------------------------------------------------------------- what it holds


def test_holds_each_mask_within_its_tight_box():
    full = special_cases()
    masks = of(full)
    np.testing.assert_array_equal(to_full(masks), full)
    assert masks.boxes.tolist() == [
        [33, 17, 1, 1],
        [0, 0, 90, 60],
        [0, 0, 0, 0],
        [20, 10, 30, 20],
        [0, 0, 7, 9],
        [79, 52, 11, 8],
        [5, 5, 70, 39],
    ]
    assert masks.get_bounding_boxes().tensor[3].tolist() == [20.0, 10.0, 50.0, 30.0]
    assert len(masks.storage) == int((masks.boxes[:, 2] * masks.boxes[:, 3]).sum())


def test_arrays_with_space_around_are_trimmed():
    mask = np.zeros((10, 12), bool)
    mask[3:5, 4:9] = True
    masks = LocalMasks.from_crops([(-2, 7, mask)], (20, 20))
    assert masks.boxes.tolist() == [[2, 10, 5, 2]]


def test_pixels_outside_the_image_are_refused():
    with pytest.raises(KitError, match="leaves its image"):
        LocalMasks.from_crops([(15, 0, np.ones((4, 6), bool))], (20, 20))


def test_no_masks():
    masks = LocalMasks.from_crops([], (20, 30))
    assert len(masks) == 0
    assert masks.get_bounding_boxes().tensor.shape == (0, 4)
    assert masks.crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)


@pytest.mark.parametrize(
    "item",
    [
        3,
        -1,
        slice(2, 6),
        slice(None, None, 2),
        torch.tensor([True, False, True, True, False, False, True]),
        torch.tensor([5, 1, 1, 0, 5]),  # proposals repeat their ground truth
        torch.tensor([], dtype=torch.int64),
    ],
    ids=str,
)
def test_indexing_selects_as_an_array_would_and_copies_no_pixels(item):
    full = special_cases()
    masks = of(full)
    chosen = masks[item]
    expected = (
        full[[item]] if isinstance(item, int) else full[item.numpy() if torch.is_tensor(item) else item]
    )
    np.testing.assert_array_equal(to_full(chosen), expected)
    assert chosen.storage is masks.storage


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.to("cpu")]
)
def test_copies_are_equal(copied):
    masks = of(special_cases())
    np.testing.assert_array_equal(to_full(copied(masks)), special_cases())


# -------------------------------------------------------------------------------- as BitMasks


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1), jitter=st.sampled_from([0.0, 1.0, 6.0]), size=st.sampled_from([7, 14, 28])
)
def test_targets_are_those_of_bitmasks(seed, jitter, size):
    full = np.concatenate([special_cases(), random_cells(20, seed)])
    masks = of(full)
    boxes = around(masks, jitter, seed)
    expected = BitMasks(torch.from_numpy(full)).crop_and_resize(boxes, size)
    found = masks.crop_and_resize(boxes, size)
    # A target that is a half but for rounding (symmetric masks have them) may fall on either side; nothing
    # else may.
    assert torch.equal(found | on_the_verge(full, boxes, size), expected | on_the_verge(full, boxes, size))
    assert (found & expected).sum() >= 0.99 * (found | expected).sum()


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 90.0, 60.0],  # the whole image
        [20.0, 10.0, 50.0, 30.0],  # whole pixels
        [-7.5, -3.2, 12.0, 30.0],  # out of the image: its edge repeats for a pixel, then nothing
        [60.0, 40.0, 99.0, 64.0],
        [30.2, 20.7, 30.9, 21.1],  # within a pixel
        [40.0, 20.0, 40.0, 30.0],  # no width
    ],
    ids=str,
)
def test_targets_of_unusual_boxes(box):
    full = special_cases()
    boxes = torch.tensor([box] * len(full))
    expected = BitMasks(torch.from_numpy(full)).crop_and_resize(boxes, 14)
    assert torch.equal(of(full).crop_and_resize(boxes, 14), expected)


def test_a_box_inside_out_holds_nothing():
    masks = of(special_cases())
    assert not masks.crop_and_resize(torch.tensor([[50.0, 30.0, 20.0, 10.0]] * len(masks)), 14).any()


def test_small_chunks_give_the_same_targets(monkeypatch):
    masks = of(np.concatenate([special_cases(), random_cells(40)]))
    boxes = around(masks, 3.0)
    at_once = masks.crop_and_resize(boxes, 28)
    monkeypatch.setattr(mask_targets, "CHUNK_PIXELS", 500)
    assert torch.equal(masks.crop_and_resize(boxes, 28), at_once)


def test_targets_do_not_lose_precision_under_autocast():
    masks = of(random_cells(60))
    boxes = around(masks, 2.0)
    expected = masks.crop_and_resize(boxes, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(masks.crop_and_resize(boxes, 28), expected)
    assert torch.equal(masks.crop_and_resize(boxes.double(), 28), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_targets_on_the_gpu():
    masks = of(np.concatenate([special_cases(), random_cells(60)]))
    boxes = around(masks, 2.0)
    on_gpu = masks.to("cuda").crop_and_resize(boxes.cuda(), 28)
    assert on_gpu.is_cuda
    assert (on_gpu.cpu() != masks.crop_and_resize(boxes, 28)).float().mean() < 1e-4


def test_800_cells():
    full = random_cells(800, radius=12)
    masks = of(full)
    np.testing.assert_array_equal(to_full(masks), full)
    boxes = around(masks, 1.0)
    expected = BitMasks(torch.from_numpy(full)).crop_and_resize(boxes, 14)
    verge = on_the_verge(full, boxes, 14)
    assert torch.equal(masks.crop_and_resize(boxes, 14) | verge, expected | verge)


def test_number_of_boxes_must_be_that_of_masks():
    with pytest.raises(ValueError, match="3 boxes for 7 masks"):
        of(special_cases()).crop_and_resize(torch.zeros(3, 4), 14)


# -------------------------------------------------------------------------------- in detectron2


def instances(masks: LocalMasks | BitMasks, boxes: Boxes) -> Instances:
    classes = torch.arange(len(boxes)) % 3
    return Instances((HEIGHT, WIDTH), gt_boxes=boxes, gt_classes=classes, gt_masks=masks)


def sampled(targets: Instances) -> list[Instances]:
    """What detectron2's ROI heads hand to the mask head for these targets."""
    heads = ROIHeads(
        num_classes=3, batch_size_per_image=64, positive_fraction=0.5, proposal_matcher=Matcher([0.5], [0, 1])
    )
    boxes = targets.gt_boxes.tensor.repeat(6, 1)
    noise = torch.randn(boxes.shape, generator=torch.Generator().manual_seed(1)) * 2
    proposals = Instances((HEIGHT, WIDTH), proposal_boxes=Boxes(boxes + noise))
    proposals.objectness_logits = torch.zeros(len(boxes))
    torch.manual_seed(0)
    with EventStorage():
        return heads.label_and_sample_proposals([proposals], [targets])


def test_detectron2_samples_and_takes_the_same_mask_loss_as_with_bitmasks():
    full = random_cells(25)
    masks = of(full)
    losses = []
    for kind in (masks, BitMasks(torch.from_numpy(full))):
        positives, _ = select_foreground_proposals(sampled(instances(kind, masks.get_bounding_boxes())), 3)
        logits = torch.randn(len(positives[0]), 3, 28, 28, generator=torch.Generator().manual_seed(2))
        with EventStorage():
            losses.append(mask_rcnn_loss(logits, positives).item())
    assert len(positives[0]) > 20
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # targets that are a half but for rounding


def test_detectron2_samples_an_image_without_cells():
    empty = instances(LocalMasks.from_crops([], (HEIGHT, WIDTH)), Boxes(torch.zeros(0, 4)))
    (proposals,) = sampled(empty)
    assert (proposals.gt_classes == 3).all()


def test_instances_move_and_index():
    masks = of(special_cases())
    moved = instances(masks, masks.get_bounding_boxes()).to("cpu")
    np.testing.assert_array_equal(to_full(moved[torch.tensor([0, 3])].gt_masks), special_cases()[[0, 3]])
