"""Boxes matched to cells in pieces, as detectron2's matcher does it at once; waits for the GPU counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torch.utils._python_dispatch import TorchDispatchMode

from kitlib.model import build, matching

ANCHORS = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
PROPOSALS = Matcher([0.5], [0, 1])

# What makes the host wait for a GPU: a value is asked for, or the size of a result is not known before.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}


def grid(side: int, step: int) -> torch.Tensor:
    """Square boxes on a grid: a small cell lies in several of them, with the same IoU."""
    at = torch.arange(0, 100, step, dtype=torch.float32)
    corner = torch.stack(torch.meshgrid(at, at, indexing="ij"), dim=-1).reshape(-1, 2)
    return torch.cat([corner, corner + side], dim=1)


@pytest.mark.parametrize("pairs", [1, 50, 1000, matching._PAIRS])
@pytest.mark.parametrize("rule", [ANCHORS, PROPOSALS], ids=["anchors", "proposals"])
def test_pieces_match_as_the_whole(rule: Matcher, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_PAIRS", pairs)
    rng = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 80, (15, 2), generator=rng).float()
    cells = Boxes(torch.cat([corner, corner + torch.randint(2, 30, (15, 2), generator=rng)], dim=1))
    boxes = Boxes(torch.cat([grid(10, 3), grid(24, 7), cells.tensor[::2] + 0.3]))
    index, label = matching.match(cells, boxes, rule)
    quality = pairwise_iou(cells, boxes)
    wanted_index, wanted_label = rule(quality)
    assert torch.equal(index, wanted_index)
    assert torch.equal(label, wanted_label)
    assert {0, 1} <= set(label.tolist())
    ties = (quality == quality.amax(1, keepdim=True)).sum(1)
    assert ties.max() > 1, "the test is to hold boxes of the same IoU"


@pytest.mark.parametrize(("cells", "boxes"), [(0, 5), (3, 0), (0, 0)])
def test_without_cells_or_boxes(cells: int, boxes: int) -> None:
    index, label = matching.match(Boxes(torch.ones(cells, 4)), Boxes(torch.ones(boxes, 4)), PROPOSALS)
    assert index.tolist() == label.tolist() == [0] * boxes
    assert label.dtype == torch.int8


class Waits(TorchDispatchMode):
    """Counts the operations for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITS or by_mask:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_seldom_waits_for_the_gpu(item: Callable, storage: Any) -> None:
    torch.manual_seed(0)
    model, batch = build("tiny"), [item(6, seed=1), item(9, seed=2)]
    with Waits() as waits:
        model(batch)
    # detectron2's own classes: 150 and more. On a CPU its NMS adds some that a GPU does not have.
    assert sum(waits.count.values()) <= 75, waits.count
