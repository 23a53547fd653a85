"""Which cell a box belongs to, by IoU, in pieces of bounded memory.

detectron2 holds the IoU of every anchor with every cell at once: with what it takes to compute, 5 MB a cell
for an image of 520 x 704 at twice its size. It also asks the GPU whether all are valid, and waits.
"""

from __future__ import annotations

import itertools

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

# Pairs of a cell and a box that are compared at once; their IoU takes about 20 bytes a pair. On the CPU,
# for 768 cells and 260,000 anchors, a million take half as long again, and 16 or 32 million are no faster.
_PAIRS = 4_000_000


@torch.no_grad()
def match(cells: Boxes, boxes: Boxes, rule: Matcher) -> tuple[Tensor, Tensor]:
    """What ``rule(pairwise_iou(cells, boxes))`` gives.

    Args:
        cells: M true boxes.
        boxes: N anchors or proposals.
        rule: detectron2's thresholds and labels.

    Returns:
        For each box the index of the cell of the highest IoU, (N,) int64, and its label, (N,) int8: 1 if
        that IoU is enough, 0 for background, -1 between the two.
    """
    if not len(cells) or not len(boxes):
        index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return index, torch.full_like(index, rule.labels[0], dtype=torch.int8)
    pieces = [Boxes(part) for part in boxes.tensor.split(max(_PAIRS // len(cells), 1))]
    # Made before the pieces: what is allocated between them would break up the memory that each gives back.
    best = boxes.tensor.new_empty(len(boxes))
    index = torch.empty_like(best, dtype=torch.int64)
    of_cell = boxes.tensor.new_empty(len(pieces), len(cells))
    spans = list(itertools.pairwise(itertools.accumulate(map(len, pieces), initial=0)))
    for piece, (start, end), highest in zip(pieces, spans, of_cell, strict=True):
        quality = pairwise_iou(cells, piece)
        torch.max(quality, dim=0, out=(best[start:end], index[start:end]))
        torch.amax(quality, dim=1, out=highest)
    label = torch.ones_like(index, dtype=torch.int8)
    for value, low, high in zip(rule.labels, rule.thresholds[:-1], rule.thresholds[1:], strict=True):
        label.masked_fill_((best >= low) & (best < high), value)
    if rule.allow_low_quality_matches:  # a cell that no box matches gets the boxes nearest to it
        most = of_cell.amax(dim=0)
        for piece, (start, end), highest in zip(pieces, spans, of_cell, strict=True):
            here = slice(None)
            if len(pieces) > 1:
                here = (highest == most).nonzero()[:, 0]
                quality = pairwise_iou(cells[here], piece)
            label[start:end].masked_fill_((quality == most[here, None]).any(dim=0), 1)
    return index, label
