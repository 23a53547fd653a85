"""The order of training samples: balance, shares, processes, resuming."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.train.sampler import SamplerConfig, TrainingSampler, repeat_factors

MASK = rle.from_mask(np.ones((2, 2), bool))


def frames(**numbers: int) -> list[Frame]:
    """``frames(cort=3, pseudo_cort=2)``: so many frames of each type, pseudo-labelled ones with scores."""
    made = []
    for name, number in numbers.items():
        category = name.removeprefix("pseudo_")
        cell = Cell(MASK, category, score=0.9 if name != category else None)
        made += [Frame(f"{name}{i}", None, 2, 2, (cell,), category) for i in range(number)]
    return made


def take(sampler: TrainingSampler, number: int) -> list[tuple[int, int]]:
    return list(islice(sampler, number))


def shares(of: list[Frame], config: SamplerConfig, number: int = 20_000) -> dict[str, float]:
    """How often each kind of frame comes, by the letters of its id."""
    drawn = Counter(of[i].id.rstrip("0123456789") for i, _ in take(TrainingSampler(of, config), number))
    return {name: n / number for name, n in drawn.items()}


# -------------------------------------------------------------------------------- how often


def test_every_frame_once_an_epoch():
    of = frames(cort=5, astro=3)
    drawn = [i for i, _ in take(TrainingSampler(of, SamplerConfig()), 24)]
    for epoch in (drawn[:8], drawn[8:16], drawn[16:]):
        assert sorted(epoch) == list(range(8))
    assert drawn[:8] != drawn[8:16]


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (0.0, {"cort": 0.80, "astro": 0.20}),
        (0.5, {"cort": 2 / 3, "astro": 1 / 3}),  # 16 : 4 becomes 4 : 2
        (1.0, {"cort": 0.50, "astro": 0.50}),
    ],
)
def test_rare_types_come_more_often(balance, expected):
    found = shares(frames(cort=16, astro=4), SamplerConfig(balance=balance))
    assert found == pytest.approx(expected, abs=0.005)


def test_within_a_type_all_frames_come_equally_often():
    of = frames(cort=320, shsy5y=155, astro=131)
    sampler = TrainingSampler(of, SamplerConfig(balance=0.5))
    epochs = 100
    drawn = Counter(i for i, _ in take(sampler, epochs * sampler.epoch_length))
    factors = repeat_factors(of, SamplerConfig(balance=0.5))
    for i, factor in enumerate(factors):
        assert drawn[i] / epochs == pytest.approx(factor, abs=0.25)
        assert drawn[i] >= epochs


def test_a_share_of_pseudo_labelled_frames():
    of = frames(cort=30, astro=10, pseudo_cort=200, pseudo_astro=20)
    assert shares(of, SamplerConfig())["pseudo_cort"] == pytest.approx(200 / 260, abs=0.005)
    found = shares(of, SamplerConfig(pseudo_share=0.3))
    assert found["pseudo_cort"] + found["pseudo_astro"] == pytest.approx(0.3, abs=0.01)
    assert found["cort"] == pytest.approx(0.7 * 3 / 4, abs=0.01)
    found = shares(of, SamplerConfig(pseudo_share=0.5, balance=1.0))
    expected = dict.fromkeys(("cort", "astro", "pseudo_cort", "pseudo_astro"), 0.25)
    assert found == pytest.approx(expected, abs=0.01)
    assert "pseudo_cort" not in shares(of, SamplerConfig(pseudo_share=0.0))


@pytest.mark.parametrize("of", [frames(cort=4), frames(pseudo_cort=4)], ids=["none", "all"])
def test_a_share_of_pseudo_labels_where_there_is_nothing_to_share(of):
    assert repeat_factors(of, SamplerConfig(pseudo_share=0.5)).tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"balance": 1.5}, "balance must be at most 1"),
        ({"pseudo_share": 1.0}, "pseudo_share must be below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(KitError, match=words):
        SamplerConfig(**values)


def test_no_frames():
    with pytest.raises(KitError, match="no training frames"):
        TrainingSampler([], SamplerConfig())


# -------------------------------------------------------------------------------- in which order


@given(
    cort=st.integers(1, 9),
    astro=st.integers(0, 9),
    pseudo=st.integers(0, 9),
    balance=st.floats(0, 1),
    share=st.none() | st.floats(0, 0.9),
    seed=st.integers(0, 2**31),
)
def test_in_every_epoch_no_frame_is_off_by_more_than_one(cort, astro, pseudo, balance, share, seed):
    of = frames(cort=cort, astro=astro, pseudo_cort=pseudo)
    config = SamplerConfig(balance, share)
    sampler = TrainingSampler(of, config, seed)
    factors = repeat_factors(of, config)
    factors *= sampler.epoch_length / factors.sum()
    drawn = take(sampler, 3 * sampler.epoch_length)
    for epoch in range(3):
        part = drawn[epoch * sampler.epoch_length : (epoch + 1) * sampler.epoch_length]
        times = Counter(i for i, _ in part)
        assert all(abs(times[i] - factor) < 1 + 1e-6 for i, factor in enumerate(factors))


def test_the_order_follows_from_seed_and_ids_alone():
    of = frames(cort=12, astro=5)
    shuffled = random.Random(0).sample(of, len(of))
    config = SamplerConfig(balance=0.5)
    ids = [of[i].id for i, _ in take(TrainingSampler(of, config, seed=3), 60)]
    assert ids == [shuffled[i].id for i, _ in take(TrainingSampler(shuffled, config, seed=3), 60)]
    assert ids != [of[i].id for i, _ in take(TrainingSampler(of, config, seed=4), 60)]


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("of", [frames(cort=7, astro=2), frames(cort=1)], ids=["9 frames", "1 frame"])
def test_processes_share_one_stream(of, world):
    config = SamplerConfig(balance=0.5)
    alone = take(TrainingSampler(of, config), 12 * world)
    parts = [take(TrainingSampler(of, config, rank=r, world=world), 12) for r in range(world)]
    # Batches of 3 in each of the processes are together the batches of 3 * world of one process.
    for batch in range(4):
        together = [sample for part in parts for sample in part[3 * batch : 3 * batch + 3]]
        assert sorted(together, key=lambda s: s[1]) == alone[3 * world * batch : 3 * world * (batch + 1)]
    assert [number for _, number in alone] == list(range(12 * world))


# -------------------------------------------------------------------------------- after resuming


@given(consumed=st.integers(0, 100), world=st.integers(1, 5))
def test_resuming_goes_on_where_it_stopped(consumed, world):
    of, config = frames(cort=7, astro=2), SamplerConfig(balance=0.7)
    for rank in range(world):
        unbroken = TrainingSampler(of, config, 1, rank, world)
        expected = take(unbroken, consumed + 20)[consumed:]
        unbroken.position += consumed
        resumed = TrainingSampler(of, config, 1, rank, world)
        resumed.load_state_dict(unbroken.state_dict())
        assert take(resumed, 20) == expected


def test_another_number_of_processes_goes_on_without_repeating():
    of = frames(cort=7, astro=2)
    first = TrainingSampler(of, SamplerConfig(), rank=0, world=4)
    first.position = 5
    resumed = TrainingSampler(of, SamplerConfig(), rank=0, world=2)
    resumed.load_state_dict(first.state_dict())
    assert take(resumed, 1)[0][1] == 20


def test_state_is_small_and_taken_back_at_once():
    sampler = TrainingSampler(frames(cort=600), SamplerConfig())
    sampler.load_state_dict({"position": 10**15})
    assert take(sampler, 1)[0][1] == 10**15
    assert sampler.state_dict() == {"position": 10**15}
