"""Cards beside a V100."""

from __future__ import annotations

import pytest

from kitlib.errors import KitError
from kitlib.forecast import cards
from kitlib.forecast.cards import CARDS


@pytest.mark.parametrize(
    ("name", "half", "times"),
    [
        ("V100", False, 1.0),
        # Its memory gains less than its arithmetic.
        ("A100", False, 1555 / 900),
        ("H100", True, 1.5 * 3350 / 900),
        ("T4", False, 320 / 900),
        ("T4", True, 1.5 * 320 / 900),
    ],
)
def test_a_card_is_as_fast_as_what_gains_less(name: str, half: bool, times: float) -> None:
    assert cards.speed(CARDS[name], half) == pytest.approx(times)


def test_seconds_of_a_share_of_the_peak() -> None:
    """44 % of 15.7 TFLOP in a second."""
    assert cards.seconds(0.44 * 15.7e12, CARDS["V100"], False, "training") == pytest.approx(1.0)
    assert cards.seconds(0.52 * 15.7e12, CARDS["V100"], True, "prediction") == pytest.approx(1 / 1.5)


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(KitError, match=r"card.*'A10'.*A100"):
        cards.named("A10")
