"""Why an instance is gone, one reason after the other."""

from __future__ import annotations

import numpy as np

from kitlib.masks import rle
from kitlib.post import thresholds
from kitlib.post.calibration import Calibration
from kitlib.post.config import PostConfig
from kitlib.records import Cell, Frame
from kitlib.viewer.layers import Removed, explain

#: An instance matches at every IoU with its score as the probability.
PROBABLE = Calibration((0.0, 1.0), ((0.0, 1.0),) * 10, 1.0)


def square(x: int, y: int, side: int, score: float) -> Cell:
    return Cell(rle.from_crop(np.ones((side, side)), x, y, 40, 60), "cort", score)


def explained(config: PostConfig, *cells: Cell) -> list[Removed]:
    steps = thresholds.steps(Frame("a", None, 40, 60, cells, "cort"), config)
    return explain(steps, config.for_category("cort"))


def test_every_removed_instance_has_its_reason() -> None:
    config = PostConfig(
        score_threshold={"default": 0.5},
        min_area={"default": 9},
        max_area={"default": 100},
        mask_nms={"default": 0.4},
        max_clipped={"default": 0.3},
    )
    expected = [
        Removed(square(50, 0, 2, 0.95), "area under 9 or over 100 pixels"),
        Removed(square(20, 0, 6, 0.4), "score below 0.50"),
        # 30 of 42 pixels are common to both.
        Removed(square(1, 0, 6, 0.8), "IoU with a better cell above 0.40"),
        # 18 of 36 pixels are the better cell's: IoU 1/3.
        Removed(square(3, 0, 6, 0.7), "over 30% of it lost to better cells"),
    ]
    assert explained(config, square(0, 0, 6, 0.9), *(each.cell for each in expected)) == expected


def test_a_cell_that_is_too_small_without_the_pixels_of_others_says_so() -> None:
    """One of its three columns is the better cell's, in two of three rows."""
    config, small = PostConfig(min_area={"default": 9}, max_clipped={"default": 0.5}), square(2, 1, 3, 0.8)
    reason = "under 9 pixels without those of better cells"
    assert explained(config, square(0, 0, 3, 0.9), small) == [Removed(small, reason)]


def test_a_cell_that_stays_for_want_of_others_is_not_called_removed() -> None:
    cells = square(0, 0, 5, 0.2), square(10, 0, 5, 0.1)
    assert explained(PostConfig(), *cells) == [Removed(cells[1], "score below 0.50")]


def test_a_calibration_leaves_out_what_lowers_the_expected_score() -> None:
    cells = square(0, 0, 5, 0.9), square(10, 0, 5, 0.01)
    config = PostConfig(calibrations={"default": PROBABLE})
    assert explained(config, *cells) == [Removed(cells[1], "too uncertain: it lowers the expected score")]
