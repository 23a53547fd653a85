"""Figures of the network and its anchors: the numbers that they show."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib import viz
from kitlib.analysis import anchors
from kitlib.masks import rle
from kitlib.model.presets import Architecture
from kitlib.model.summary import Block
from kitlib.records import Cell, Frame

SIZE = (300, 400)
BLOCKS = [
    Block("stem", "backbone", "7 x 7, pooled", 64, 4, 9_000),
    Block("res2", "backbone", "2 blocks", 64, 4, 100_000),
    Block("res3", "backbone", "2 blocks", 128, 8, 500_000),
    Block("p2", "pyramid", "", 64, 4, 40_000),
    Block("p3", "pyramid", "", 64, 8, 40_000),
    Block("p4", "pyramid", "pooled", 64, 16, 0),
    Block("proposals", "proposals", "3 anchors", 64, None, 11_000),
    Block("box 1", "box", "IoU 0.5", 256, None, 200_000),
    Block("box 2", "box", "IoU 0.6", 256, None, 200_000),
    Block("mask 2", "mask", "28 x 28", 64, None, 100_000),
]


def cell(x: int, y: int, width: int, height: int) -> Cell:
    return Cell(rle.from_crop(np.ones((height, width)), x, y, *SIZE), "cort")


def test_every_block_is_drawn_once_with_its_numbers(drawn) -> None:
    (axes,) = drawn(viz.network(BLOCKS)).axes
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts[::2] == [block.name for block in BLOCKS]
    assert texts[5] == "128 ch, stride 8\n2 blocks, 0.50 M"
    assert len(axes.patches) == len(BLOCKS)
    # Stem, res2 and res3 in a row, two laterals, one way down and one up, three to the proposals, the heads.
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == 2 + 2 + 2 + 3 + 2 + 1
    assert "1.2 M parameters" in axes.get_title(loc="left")


def test_no_two_blocks_lie_on_each_other(drawn) -> None:
    (axes,) = drawn(viz.network(BLOCKS)).axes
    boxes = np.array([p.get_bbox().get_points().ravel() for p in axes.patches])
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_shares_of_cells_with_a_fitting_anchor(drawn) -> None:
    """A cell of 32 x 32 on the grid has an anchor of its own; a thin one of 4 x 128 has none."""
    architecture = Architecture()
    frames = [Frame("a", None, *SIZE, (cell(112, 112, 32, 32), cell(0, 0, 4, 128)), "cort")]
    fits = anchors.by_type(frames, architecture, {"default": 1.0})
    left, right = drawn(viz.anchor_fit(fits, architecture)).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["cort, median 80", "anchor sizes"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["cort, 50% at 0.5 or more"]
    assert left.lines[-1].get_xdata().tolist() == [8, 16, 32, 64, 128]
    drawn(viz.anchor_fit({}, architecture))


def test_anchors_are_drawn_in_the_frame_s_pixels(drawn) -> None:
    """At twice the size, a cell of 16 x 16 has the anchor of 32 x 32."""
    one = Frame("a", None, *SIZE, (cell(192, 144, 16, 16), cell(190, 150, 2, 90)), "cort")
    (axes,) = drawn(viz.anchors_over_cells([one], Architecture(), {"default": 1.0, "cort": 2.0})).axes
    boxes, best, poor, _ = (lines.get_segments() for lines in axes.collections[1:])
    assert np.ptp(boxes[0], axis=0) == pytest.approx([16, 16])
    assert boxes[0] == pytest.approx(best[0])
    assert np.ptp(poor[0], axis=0) == pytest.approx([2, 90])
    assert axes.get_title(loc="left") == "cort at 2x: 50% of its cells have an anchor"
    assert axes.get_xlim() == (100, 300)
