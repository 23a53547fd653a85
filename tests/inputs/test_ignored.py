"""Areas where it is not known what there is: neither cells nor background, for anchors, boxes and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kitlib.inputs.ignored import IgnoredArea
from kitlib.inputs.mask_targets import LocalMasks
from kitlib.model import build
from kitlib.model.heads import IgnoringMaskHead

SIDE = 64


def area(*boxes: tuple[int, int, int, int], count: int = 1, side: int = SIDE) -> IgnoredArea:
    """The ignored area that these boxes cover."""
    mask = np.zeros((side, side), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return IgnoredArea.from_mask(mask, count)


def covered(area: IgnoredArea, *boxes: tuple[float, ...]) -> list[bool]:
    return area.covers(Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))).tolist()


# -------------------------------------------------------------------------------------------- the area


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20, 20, 30, 30), True),  # the area itself
        ((20, 20, 40, 30), False),  # exactly half of it inside
        ((20, 20, 39, 30), True),  # just more
        ((22, 22, 24, 24), True),  # within
        ((0, 0, 64, 64), False),  # the whole image
        ((40, 40, 50, 50), False),  # elsewhere
        ((25, 25, 25, 30), False),  # no area
        ((-50, 20, 1, 30), False),  # nearly all of it outside of the image
        ((70, 70, 80, 80), False),  # all of it
    ],
)
def test_a_box_is_undecided_when_most_of_it_is_ignored(box, expected):
    assert covered(area((20, 20, 30, 30)), box) == [expected]


def test_of_a_box_over_the_edge_the_visible_part_counts():
    assert covered(area((0, 20, 6, 30)), (-30, 20, 10, 30)) == [True]  # 6 of the 10 visible columns


def test_every_box_that_would_match_an_unknown_cell_is_undecided():
    """Whatever overlaps the cell's box at an IoU above a half."""
    cell, rng = np.array([20, 24, 36, 44]), np.random.default_rng(0)
    boxes = np.sort(cell.reshape(2, 2) + rng.integers(-12, 13, (4000, 2, 2)), axis=1).reshape(-1, 4)
    low, high = np.maximum(boxes[:, :2], cell[:2]), np.minimum(boxes[:, 2:], cell[2:])
    shared = np.clip(high - low, 0, None).prod(1)
    iou = shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + 16 * 20 - shared)
    assert 50 < (iou > 0.5).sum() < 2000
    assert all(covered(area(tuple(cell)), *boxes[iou > 0.5].tolist()))


corner = st.integers(-5, 25)


@given(st.lists(st.booleans(), min_size=400, max_size=400), corner, corner, corner, corner)
def test_shares_are_counted_pixels(bits, x0, y0, x1, y1):
    mask = np.array(bits).reshape(20, 20)
    box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    seen = mask[max(box[1], 0) : max(box[3], 0), max(box[0], 0) : max(box[2], 0)]
    assert covered(IgnoredArea.from_mask(mask, 1), box) == [bool(seen.sum() > seen.size / 2)]


def test_bins_of_a_box_are_looked_up_at_their_middle():
    inside = area((10, 0, 20, 64)).covers_bins(torch.tensor([[5.0, 5, 25, 9], [0, 0, 2, 2]]), side=4)
    assert inside[0].tolist() == [[False, True, True, False]] * 4  # bins of 5 columns from 5 on
    assert not inside[1].any()


def test_every_cell_refers_to_the_same_area():
    found = area((0, 0, 9, 9), count=5)
    chosen = [found[torch.tensor([0, 0, 4])], found[found.table[0, :5] > 0], found[1:3], found[2]]
    assert [len(c) for c in chosen] == [3, 0, 2, 1]
    assert all(
        covered(c, (0, 0, 9, 9), (30, 30, 39, 39)) == [True, False] for c in [*chosen, found.to("cpu")]
    )


# ---------------------------------------------------------------------------------------- in training


@pytest.fixture
def model() -> nn.Module:
    """One that samples every anchor and proposal, so that its losses do not depend on chance."""
    torch.manual_seed(0)
    return build("tiny", rpn_batch=100_000, roi_batch=100_000, detections=9)


def ignoring(item: dict[str, Any], *boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    """An input without knowledge of what the boxes hold."""
    cells = Instances(item["instances"].image_size, **item["instances"].get_fields())
    cells.gt_ignored = area(*boxes, count=len(cells))
    return {**item, "instances": cells}


def losses_of(model: nn.Module, *batch: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return model(list(batch))


def test_an_anchor_in_the_area_is_background_no_more_and_cells_stay_cells(item, model):
    plain, box = item(8, seed=2), (0, 0, 40, 40)
    cells, partly_ignored = plain["instances"], ignoring(plain, box)["instances"]
    strides = model.proposal_generator.anchor_generator.strides
    maps = [torch.zeros(1, 64, -(-SIDE // s), -(-SIDE // s)) for s in strides]
    anchors = model.proposal_generator.anchor_generator(maps)
    label = model.proposal_generator.label_and_sample_anchors
    before, after = label(anchors, [cells])[0][0], label(anchors, [partly_ignored])[0][0]
    inside = area(box).covers(Boxes.cat(anchors))
    changed = before != after
    assert changed.sum() > 50
    assert torch.equal(changed, (before == 0) & inside)
    assert set(after[changed].tolist()) == {-1}
    assert (inside & (after == 1)).any()


@pytest.mark.parametrize("mask_stages", ["all", "last"])
def test_a_box_in_the_area_enters_no_stage_unless_it_matches_a_cell(item, storage, mask_stages):
    torch.manual_seed(0)
    model = build("tiny", mask_stages=mask_stages, roi_batch=100_000)
    entered = []
    model.roi_heads.box_pooler.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[1][0]))
    plain, box = item(10, seed=2), (0, 0, 48, 48)
    losses_of(model, ignoring(plain, box))
    inside, truth = area(box), plain["instances"].gt_boxes
    before = [*entered]
    entered.clear()
    losses_of(model, plain)
    for boxes, all_boxes, threshold in zip(before[:3], entered[:3], (0.5, 0.6, 0.7), strict=True):
        matching = overlaps(boxes.tensor, truth.tensor).amax(1) >= threshold
        assert not (inside.covers(boxes) & ~matching).any()
        assert (inside.covers(boxes) & matching).any()
        assert inside.covers(all_boxes).sum() > inside.covers(boxes).sum()


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of each with each, by hand."""
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    shared = (torch.minimum(boxes[:, None, 2:], others[:, 2:]) - low).clamp(min=0).prod(2)
    sizes = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return shared / (sizes[0][:, None] + sizes[1] - shared)


def test_the_mask_s_loss_leaves_out_ignored_pixels_and_changes_no_others(storage):
    shape = ShapeSpec(channels=3, height=14, width=14)
    make = {"num_classes": 2, "conv_dims": [4, 4]}
    ours, theirs = IgnoringMaskHead(shape, **make), MaskRCNNConvUpsampleHead(shape, **make)
    theirs.load_state_dict(ours.state_dict())
    logits = torch.randn(3, 2, 28, 28, requires_grad=True)
    gradients = []
    for head, partly_ignored in ((ours, True), (theirs, False), (ours, False)):
        head.layers = lambda x: x
        first, second = (
            positives([[0.0, 0, 28, 28]], [1]),
            positives([[8.0, 8, 36, 36], [30, 30, 58, 58]], [0, 1]),
        )
        if partly_ignored:
            second.gt_ignored = area((22, 0, 36, 64), count=2)
        logits.grad = None
        head(logits, [first, second])["loss_mask"].backward()
        gradients.append(logits.grad.clone())
    known = torch.ones(3, 1, 28, 28, dtype=torch.bool)
    known[1, :, :, 14:] = False  # columns 22 to 36 of a box from 8 to 36
    known[2, :, :, :6] = False
    torch.testing.assert_close(gradients[0], gradients[1] * known)
    assert torch.equal(gradients[1], gradients[2])


def positives(boxes: list[list[float]], classes: list[int]) -> Instances:
    masks = LocalMasks.from_crops([(int(x), int(y), np.ones((20, 20))) for x, y, *_ in boxes], (SIDE, SIDE))
    return Instances(
        (SIDE, SIDE), proposal_boxes=Boxes(boxes), gt_classes=torch.tensor(classes), gt_masks=masks
    )


@pytest.mark.parametrize("cells", [0, 5])
def test_where_nothing_is_known_there_is_nothing_to_learn_but_the_cells(model, item, storage, cells):
    losses = losses_of(model, ignoring(item(cells), (0, 0, SIDE, SIDE)))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if not cells:
        assert sum(losses.values()) == 0


def test_areas_and_weights_go_together(model, item, storage):
    batch = [ignoring(item(6, seed=1), (0, 0, 30, 64)), item(9, seed=2), item(0, seed=3)]
    alone = [losses_of(model, x) for x in batch]
    weights = 0.25, 1.0, 0.25
    together = losses_of(model, *({**x, "weight": w} for x, w in zip(batch, weights, strict=True)))
    pair = losses_of(model, batch[0], batch[2])
    for name, loss in together.items():
        expected = (2 * 0.25 * pair[name] + alone[1][name]) / 3
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6, msg=name)


# ------------------------------------------------------------------------------- a training, end to end


def squares(rng: np.random.Generator, missing: int = 0, ignore: bool = False) -> dict[str, Any]:
    """Three bright squares, of which the first ones are missing from the annotation or, if so, ignored."""
    corners = [(int(3 + 21 * (p % 3)), int(3 + 21 * (p // 3))) for p in rng.permutation(9)[:3]]
    image = torch.full((3, SIDE, SIDE), 110, dtype=torch.uint8)
    for x, y in corners:
        image[:, y : y + 16, x : x + 16] = 190
    crops = [(x, y, np.ones((16, 16))) for x, y in corners[missing:]]
    masks = LocalMasks.from_crops(crops, (SIDE, SIDE))
    classes = torch.zeros(len(crops), dtype=torch.int64)
    cells = Instances((SIDE, SIDE), gt_boxes=masks.get_bounding_boxes(), gt_classes=classes, gt_masks=masks)
    if ignore:
        cells.gt_ignored = area(*((x, y, x + 16, y + 16) for x, y in corners[:missing]), count=len(cells))
    return {"image": image, "instances": cells, "height": SIDE, "width": SIDE}


def learned(ignore: bool) -> float:
    """The mean score of the squares of new images after training on images with two of three missing."""
    torch.manual_seed(0)
    model = build("tiny", num_classes=1, mask_stages="last", rpn_batch=64, roi_batch=32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        optimiser.zero_grad()
        sum(model([squares(rng, 2, ignore)]).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    model.eval()
    scores: list[float] = []
    for image in (squares(rng) for _ in range(4)):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        iou = overlaps(found.pred_boxes.tensor, image["instances"].gt_boxes.tensor)
        matching = torch.where(iou > 0.5, found.scores[:, None], 0.0)
        scores += [max(column, default=0.0) for column in matching.T.tolist()]
    return float(np.mean(scores))


@pytest.mark.slow
def test_an_unlabelled_cell_in_the_area_is_no_lesson_in_missing_cells(storage):
    """Taken for background, two cells of three teach doubt in all; ignored, they teach nothing."""
    ignored, background = learned(ignore=True), learned(ignore=False)
    assert ignored > 0.7
    assert background < ignored - 0.2
