"""A time budget against a clock that is set by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.predict import PredictConfig
from kitlib.predict.budget import Budget, plans

FULL = PredictConfig(scales=(2.0, 1.0), tta=("none", "flip_h", "flip_v"))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def work(budget, clock, pace, frames):
    """The plans that are chosen on a machine of ``pace`` seconds for each network pixel."""
    chosen = []
    for pixels in frames:
        plan = budget.next()
        chosen.append(plan)
        if plan is not None:
            clock.now += pace * plan.cost * pixels
            budget.done(plan)
    return chosen


def test_orientations_go_first_then_scales_then_models():
    choices = plans(FULL, 3)
    assert [(len(p.config.tta), len(p.config.scales), p.models) for p in choices] == [
        (3, 2, 3),
        (2, 2, 3),
        (1, 2, 3),
        (1, 1, 3),
        (1, 1, 2),
        (1, 1, 1),
    ]
    assert [p.cost for p in choices] == [
        45,
        30,
        15,
        12,
        8,
        4,
    ]  # models x orientations x (4 + 1), then without the 1
    assert choices[0].without == ""
    assert choices[1].without == "orientations flip_v"
    assert choices[-1].without == "orientations flip_h, flip_v and scales 1.0 and models 2, 3"


def test_scales_by_type_are_left_out_alike_and_the_dearest_type_counts():
    config = PredictConfig(scales=(1.0,), scales_by_type={"astro": (0.5,), "cort": (2.0, 3.0)}, tta=FULL.tta)
    choices = plans(config, 2)
    assert [p.cost for p in choices] == [1 + 2 * 3 * 13, 1 + 2 * 2 * 13, 1 + 2 * 13, 1 + 2 * 4, 1 + 4]
    assert [p.without for p in choices][2:4] == [
        "orientations flip_h, flip_v",
        "orientations flip_h, flip_v and scales 3.0",
    ]
    assert choices[3].config.scales_by_type == {"astro": (0.5,), "cort": (2.0,)}


def test_one_model_at_one_scale_has_nothing_to_leave_out():
    assert [p.without for p in plans(PredictConfig(), 1)] == [""]


def test_without_a_limit_all_is_done():
    clock = Clock()
    budget = Budget(plans(FULL, 3), [10] * 5, None, clock)
    assert {p.without for p in work(budget, clock, 1e6, [10] * 5)} == {""}


def test_the_first_frame_is_predicted_in_full_and_shows_the_pace():
    clock = Clock()
    # 10 frames of 45 s each at full; 250 s are left for the last nine: 2 orientations cost 30 s, 1 15 s.
    budget = Budget(plans(FULL, 3), [10] * 10, clock() + 45 + 250, clock)
    chosen = work(budget, clock, 0.1, [10] * 10)
    assert [p.cost for p in chosen[:2]] == [45, 15]
    assert None not in chosen
    assert clock.now <= 100 + 45 + 250


def test_too_slow_for_all_the_cheapest_does_as_many_as_it_can():
    clock = Clock()
    budget = Budget(plans(FULL, 1), [10] * 20, clock() + 100, clock)
    chosen = work(budget, clock, 1.0, [10] * 20)  # 150 s for the first frame alone
    assert chosen[0].cost == 15
    assert chosen[1:] == [None] * 19
    clock = Clock()
    budget = Budget(plans(FULL, 1), [10] * 20, clock() + 400, clock)
    chosen = work(budget, clock, 1.0, [10] * 20)  # 250 s are left for frames of 40 s
    assert [p and p.cost for p in chosen] == [15] + [4] * 6 + [None] * 13
    assert clock.now <= 500


def test_a_large_frame_is_known_to_take_longer():
    clock = Clock()
    frames = [10, 10, 1000]
    budget = Budget(plans(FULL, 1), frames, clock() + 2000, clock)
    chosen = work(budget, clock, 0.1, frames)
    assert [p.cost for p in chosen] == [15, 15, 15]  # 1,530 s at full
    clock = Clock()
    budget = Budget(plans(FULL, 1), frames, clock() + 600, clock)
    assert [p.cost for p in work(budget, clock, 0.1, frames)] == [15, 5, 5]


def test_no_time_from_the_start():
    clock = Clock()
    assert work(Budget(plans(FULL, 1), [10], clock() - 1, clock), clock, 1.0, [10]) == [None]


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    st.floats(1e-4, 1.0),
    st.floats(1.0, 1e5),
    st.integers(1, 4),
)
def test_at_a_steady_pace_only_the_first_frame_can_be_late(frames, pace, seconds, models):
    clock = Clock()
    choices = plans(FULL, models)
    chosen = work(Budget(choices, frames, 100 + seconds, clock), clock, pace, frames)
    first = pace * choices[0].cost * frames[0]
    assert clock.now - 100 <= max(seconds, first) * (1 + 1e-9)
    if None in chosen:
        gone = chosen.index(None)
        left = 100 + seconds - sum(pace * p.cost * f for p, f in zip(chosen[:gone], frames, strict=False))
        assert pace * 1.1 * choices[-1].cost * frames[gone] > left - 100 - 1e-6


@pytest.mark.parametrize("slower", [3.0])
def test_a_machine_that_becomes_slower_is_met_with_cheaper_plans(slower):
    clock = Clock()
    budget = Budget(plans(FULL, 3), [10] * 30, clock() + 30 * 50, clock)
    first = work(budget, clock, 0.1, [10] * 10)
    rest = work(budget, clock, 0.1 * slower, [10] * 20)
    assert {p.cost for p in first} == {45}
    assert None not in rest
    assert min(p.cost for p in rest) < 45
