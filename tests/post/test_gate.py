"""The gate: clear gains pass, losses, noise and gains below the margin do not."""

import numpy as np
import pytest

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.gate import decide
from kitlib.records import Cell, Frame


def frames(hits):
    """Images of ten cells each, of which some were found."""
    masks = [rle.from_runs(np.array([10 * i]), np.array([10]), 1, 200) for i in range(10)]
    return [
        Frame(str(n), None, 1, 200, tuple(Cell(m, "cort", 0.9) for m in masks[:hit]))
        for n, hit in enumerate(hits)
    ]


TRUTH = frames([10] * 12)
BEFORE = [5, 6, 4, 5, 6, 5, 4, 5, 6, 5, 4, 5]


@pytest.mark.parametrize(
    ("gains", "margin", "better"),
    [
        ([1] * 12, 0.0, True),
        ([1] * 12, 0.09, True),
        ([1] * 12, 0.1, False),  # a bound of just the margin is not above it
        ([0] * 12, 0.0, False),
        ([-1] * 12, 0.0, False),
        ([4, -3] * 5 + [0, 0], 0.0, False),  # a mean gain of 0.04 that two images more could turn
        ([1, 1, 1, 0, 2, 1, 1, 1, 0, 2, 1, 1], 0.0, True),
    ],
)
def test_decisions(gains, margin, better):
    after = frames([b + g for b, g in zip(BEFORE, gains, strict=True)])
    decision = decide(TRUTH, frames(BEFORE), after, margin, confidence=0.9)
    assert decision.replace is better
    assert decision.gain == pytest.approx(np.mean(gains) / 10)
    assert decision.at_least <= decision.gain + 1e-9
    assert decision.images == 12


def test_pairs_tell_more_than_the_two_means():
    """Images differ by far more than the gain, which every one of them shows."""
    before = [0, 9, 1, 8, 2, 7, 3, 6, 4, 5, 0, 9]
    assert decide(TRUTH, frames(before), frames([b + 1 for b in before]), confidence=0.99).replace


def test_one_image_decides_nothing():
    decision = decide(TRUTH[:1], frames([1]), frames([9]))
    assert not decision.replace
    assert decision.sentence == (
        "the earlier weights stay: a gain of +0.8000 on one validation image may be chance"
    )


@pytest.mark.parametrize(("when", "both"), [("before", (3, 12)), ("after", (12, 3))])
def test_an_image_that_was_not_predicted_is_no_image_without_cells(when, both):
    before, after = (frames(BEFORE[:number]) for number in both)
    with pytest.raises(KitError, match=f"9 of the 12 validation images, '10' for one, .* {when} retraining"):
        decide(TRUTH, before, after)


def test_in_words():
    after = frames([b + 1 for b in BEFORE])
    assert decide(TRUTH, frames(BEFORE), after, confidence=0.9).sentence == (
        "the retrained weights replace the earlier ones: a gain of +0.1000 on 12 validation images, "
        "at least +0.1000 with 90% confidence, which is more than 0"
    )
    assert decide(TRUTH, after, frames(BEFORE)).sentence.startswith(
        "the earlier weights stay: a gain of -0.1"
    )


def test_other_images_are_refused():
    with pytest.raises(KitError, match="without truth"):
        decide(TRUTH[:3], frames(BEFORE), frames(BEFORE))
