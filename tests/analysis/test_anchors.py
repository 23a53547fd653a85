"""The best anchors of cells: against detectron2's own anchors, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib import model  # noqa: F401, so that detectron2 can be imported
from kitlib.analysis import anchors
from kitlib.model.presets import Architecture, ModelConfig
from kitlib.records import Frame

SMALL_AND_LONG = {
    "anchor_sizes": [[4, 6], [9, 12], [17, 24], [31, 50], [64, 90]],
    "anchor_ratios": [0.2, 1, 5],
}


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("options", [{}, SMALL_AND_LONG], ids=["tiny", "small and long"])
def test_they_are_the_best_of_all_that_detectron2_makes(options: dict, scale: float) -> None:
    import torch
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.anchor_generator import build_anchor_generator
    from detectron2.structures import Boxes, pairwise_iou

    from kitlib.model.architecture import to_cfg

    rng = np.random.default_rng(0)
    corners = rng.uniform(60, 160, (60, 2)).round()
    boxes = np.concatenate([corners, corners + rng.uniform(4, 60, (60, 2)).round()], axis=1)
    config = ModelConfig("tiny", options=options)
    generator = build_anchor_generator(to_cfg(config), [ShapeSpec(stride=s) for s in anchors.STRIDES])
    side = 512
    maps = [torch.zeros(1, 1, side // stride, side // stride) for stride in anchors.STRIDES]
    every = Boxes.cat(generator(maps))
    iou = pairwise_iou(Boxes(torch.from_numpy(boxes * scale).float()), every).max(dim=1).values.numpy()
    found = anchors.fit(boxes, config.architecture, scale)
    assert found.iou == pytest.approx(iou, abs=1e-5)
    own = torch.from_numpy(found.anchors).float()
    pairs = pairwise_iou(Boxes(torch.from_numpy(found.boxes).float()), Boxes(own)).diagonal().numpy()
    assert pairs == pytest.approx(found.iou, abs=1e-5)


def test_the_strides_are_the_network_s() -> None:
    from kitlib.model import summary

    blocks = summary.summarise(ModelConfig("tiny"))
    assert tuple(block.stride for block in blocks if block.kind == "pyramid") == anchors.STRIDES


def test_a_cell_on_the_grid_has_an_anchor_of_its_own() -> None:
    found = anchors.fit([[112, 112, 144, 144]], Architecture())
    assert found.iou.tolist() == [1.0]
    assert found.anchors.tolist() == [[112, 112, 144, 144]]
    # 32 pixels belong to the third level.
    assert found.level.tolist() == [2]


def test_types_are_seen_at_their_scales(frame, cell) -> None:
    frames = [frame(cell(8, 8, 16, 16)), frame(cell(8, 8, 16, 16), name="b", category="astro")]
    frames.append(frame(name="c", category="bare"))
    fits = anchors.by_type(frames, Architecture(), {"default": 1.0, "astro": 2.0})
    table = anchors.table(fits)
    assert table["median longer side"].tolist() == pytest.approx([32, np.nan, 16], nan_ok=True)
    assert table["IoU at least 0.5"].tolist() == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert table["cells"].tolist() == [1, 0, 1]
    assert anchors.table({}).empty


def test_no_boxes() -> None:
    found = anchors.fit(np.zeros((0, 4)), Architecture())
    assert found.iou.shape == (0,)
    assert (
        anchors.by_type([Frame("a", None, 9, 9)], Architecture(), {"default": 1.0})["unknown"].iou.size == 0
    )
