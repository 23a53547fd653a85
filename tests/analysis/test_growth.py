"""Learning curves: power laws that are known, and what further images bring."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib.analysis import growth
from kitlib.analysis.growth import Point
from kitlib.errors import KitError


def law(n, top: float = 0.35, factor: float = 0.6, exponent: float = 0.5):
    return top - factor * np.asarray(n, float) ** -exponent


def points(numbers, spread: float = 0.002, noise: float = 0.0, seed: int = 0) -> list[Point]:
    errors = np.random.default_rng(seed).normal(0, 1, len(numbers)) * noise
    scores = law(numbers) + errors
    return [
        Point(n, float(s), float(s - 1.645 * spread), float(s + 1.645 * spread))
        for n, s in zip(numbers, scores, strict=True)
    ]


def test_a_power_law_is_found_again() -> None:
    found = growth.fit(points([5, 10, 20, 40]))
    assert found.curve == pytest.approx(law(found.images), abs=1e-6)
    assert found.images[0] == 5
    assert found.images[-1] == 80
    assert found.gain == pytest.approx(law(50) - law(40), abs=1e-6)
    assert found.gain_low <= found.gain <= found.gain_high
    assert (found.low <= found.curve + 1e-3).all()
    assert (found.curve <= found.high + 1e-3).all()


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """In about 9 of 10 trials; with 40 of them 29 or fewer would be a rare accident."""
    true = law(50) - law(40)
    held = 0
    for seed in range(40):
        found = growth.fit(points([5, 10, 20, 40], spread=0.01, noise=0.01, seed=seed))
        held += found.gain_low <= true <= found.gain_high
    assert held >= 30


def test_uncertain_scores_make_an_uncertain_gain() -> None:
    narrow, wide = (growth.fit(points([5, 10, 20, 40], spread=spread)) for spread in (0.005, 0.05))
    assert wide.gain_high - wide.gain_low > 2 * (narrow.gain_high - narrow.gain_low)


def test_a_curve_never_falls_nor_passes_one() -> None:
    falling = [Point(n, 0.5 - 0.01 * n, 0.4, 0.6) for n in (5, 10, 20)]
    found = growth.fit(falling)
    assert np.ptp(found.curve) == pytest.approx(0)
    assert found.gain == pytest.approx(0)
    assert found.sentence.endswith("The score did not rise with the number of images.")
    steep = [Point(n, score, score - 0.001, score + 0.001) for n, score in ((1, 0.0), (2, 0.5), (3, 0.98))]
    assert growth.fit(steep).curve.max() <= 1


def test_the_sentence_says_how_many_and_how_sure() -> None:
    found = growth.fit(points([5, 10, 20, 40]), more=20)
    assert found.sentence == (
        f"20 more annotated images would bring about {law(60) - law(40):+.3f} (90 % interval "
        f"{found.gain_low:+.3f} to {found.gain_high:+.3f}), if the curve of 4 trainings goes on beyond "
        "40 images as it does."
    )
    assert found.scores["40"] == pytest.approx(law(40))


def test_points_that_chance_may_have_put_in_this_order_are_told() -> None:
    for spread, by_chance in ((0.002, False), (0.2, True)):
        said = growth.fit(points([5, 10, 20, 40], spread=spread)).sentence
        assert said.endswith("Chance alone may explain that it rises.") == by_chance


@pytest.mark.parametrize("numbers", [[10], [10, 20], [10, 10, 10, 20]])
def test_two_numbers_of_images_are_too_few_to_go_on_from(numbers) -> None:
    found = growth.fit(points(numbers))
    assert found.gain is None
    assert len(found.curve) == 0
    assert len(found.points) == len(numbers)
    assert "Three or more" in found.sentence


def test_no_points_and_no_images_are_refused() -> None:
    for bad in ([], [Point(0, 0.1, 0.0, 0.2)]):
        with pytest.raises(KitError, match="at least one training image"):
            growth.fit(bad)


def test_the_same_points_give_the_same_interval_in_any_order() -> None:
    some = points([5, 10, 20, 40], spread=0.02, noise=0.01)
    one, other = growth.fit(some), growth.fit(some[::-1])
    assert (one.gain, one.gain_low, one.gain_high) == (other.gain, other.gain_low, other.gain_high)
