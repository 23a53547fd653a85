"""Folds: what stays together, what is spread, and that nothing but ids, groups and the seed decides."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib.data import competition, folds
from kitlib.errors import KitError
from kitlib.records import Frame


def frame(name, category=None, group=None):
    return Frame(name, None, 4, 4, category=category, group=group)


def kinds(**counts):
    return [frame(f"{kind}{i}", kind) for kind, count in counts.items() for i in range(count)]


def counts(frames, places):
    result = defaultdict(Counter)
    for f in frames:
        result[places[f.id]][f.category] += 1
    return result


sets = st.lists(
    st.tuples(st.sampled_from(["astro", "cort", None]), st.one_of(st.none(), st.integers(0, 8))),
    min_size=5,
    max_size=60,
).map(lambda rows: [frame(f"f{i}", c, None if g is None else f"g{g}") for i, (c, g) in enumerate(rows)])


@given(frames=sets, seed=st.integers(0, 3), share=st.floats(0.05, 1.0))
def test_a_larger_share_holds_a_smaller_one_and_types_are_in_proportion(frames, seed, share):
    part, half = folds.subset(frames, share, seed), folds.subset(frames, share / 2, seed)
    assert len(part) == max(round(share * len(frames)), 1)
    assert [f for f in frames if f in part] == part
    assert [f for f in part if f in half] == half
    assert folds.subset(frames[::-1], share, seed) == part[::-1]
    every, chosen = (Counter(f.category for f in some) for some in (frames, part))
    for category, count in every.items():
        assert abs(chosen[category] - count * len(part) / len(frames)) <= 1.5


@given(frames=sets, seed=st.integers(0, 3), count=st.integers(2, 5))
def test_every_frame_has_a_fold_and_no_group_has_two(frames, seed, count):
    places = folds.assign(frames, count, seed)
    assert set(places) == {f.id for f in frames}
    assert set(places.values()) <= set(range(count))
    groups = {f.group for f in frames}
    if len(groups) > 1:
        for group in groups - {None}:
            assert len({places[f.id] for f in frames if f.group == group}) == 1


@given(frames=sets, seed=st.integers(0, 3))
def test_the_order_of_the_frames_does_not_matter(frames, seed):
    shuffled = random.Random(seed).sample(frames, len(frames))
    assert folds.assign(frames, 5, seed) == folds.assign(shuffled, 5, seed)


@given(astro=st.integers(0, 30), cort=st.integers(0, 30), shsy5y=st.integers(5, 30), seed=st.integers(0, 9))
def test_without_groups_every_category_is_even_to_one_image(astro, cort, shsy5y, seed):
    frames = kinds(astro=astro, cort=cort, shsy5y=shsy5y)
    spread = counts(frames, folds.assign(frames, 5, seed))
    for kind in ("astro", "cort", "shsy5y"):
        held = [spread[fold][kind] for fold in range(5)]
        assert max(held) - min(held) <= 1


def test_the_real_set_holds_out_a_fifth_of_each_type(real_competition):
    frames = competition.labelled(real_competition)
    train, validation = folds.split(frames)
    assert Counter(f.category for f in validation) == {"astro": 2, "cort": 4, "shsy5y": 1}
    assert len(train) + len(validation) == 34


def test_samples_of_606_images_spread_evenly():
    rng = random.Random(1)
    frames = []
    for kind, count in (("cort", 320), ("shsy5y", 155), ("astro", 131)):  # samples of 1 to 8 images
        taken = sample = 0
        while taken < count:
            size = min(rng.randint(1, 8), count - taken)
            frames += [frame(f"{kind}{taken + i}", kind, f"{kind}-{sample}") for i in range(size)]
            taken, sample = taken + size, sample + 1
    spread = counts(frames, folds.assign(frames))
    for kind, count in (("cort", 320), ("shsy5y", 155), ("astro", 131)):
        assert all(abs(spread[fold][kind] - count / 5) < 2 for fold in range(5))


def test_a_group_and_a_frame_of_the_same_name_are_different_things():
    frames = [frame("a", group="b"), frame("c", group="b"), frame("b")]
    places = folds.assign(frames, 2)
    assert places["a"] == places["c"] != places["b"]


def test_frames_of_a_validation_sample_are_left_out():
    validation = [frame("a", group="well 1"), frame("b")]
    others = [frame("c", group="well 1"), frame("d", group="well 2"), frame("e")]
    assert [f.id for f in folds.apart(others, validation)] == ["d", "e"]


def test_the_seed_changes_the_folds():
    frames = kinds(cort=40)
    assert folds.assign(frames, 5, 0) != folds.assign(frames, 5, 1)


def test_the_folds_are_the_same_on_every_machine():
    """Python salts its own hashes anew in each process, so these fixed values would soon tell."""
    assert folds.assign(kinds(astro=3, cort=4), 3, seed=7) == {
        "astro0": 1,
        "astro1": 0,
        "astro2": 2,
        "cort0": 2,
        "cort1": 0,
        "cort2": 2,
        "cort3": 1,
    }


def test_a_category_of_one_sample_stays_in_training(caplog):
    frames = [*kinds(cort=10), *(frame(f"a{i}", "astro", "one") for i in range(2))]
    train, validation = folds.split(frames)
    assert {f.category for f in train} == {"astro", "cort"}
    assert {f.category for f in validation} == {"cort"}
    assert "fold 0 leaves no validation image of category 'astro'" in caplog.text


def test_an_oversized_sample_stays_in_training():
    frames = [frame(f"big{i}", "cort", "big") for i in range(30)] + kinds(cort=6)
    _, validation = folds.split(frames)
    assert {f.group for f in validation} == {None}


def test_fewer_samples_than_folds_hold_out_one_sample():
    frames = [frame(f"{g}{i}", "cort", g) for g in "abc" for i in range(4)]
    train, validation = folds.split(frames, folds=5)
    assert (len(train), len(validation)) == (8, 4)
    with pytest.raises(KitError, match="fold 4 is empty: the 12 images come from only 3 groups; use folds=3"):
        folds.split(frames, fold=4)


def test_one_sample_for_all_is_split_by_image_with_a_warning(caplog):
    frames = [frame(f"f{i}", "cort", "dish") for i in range(10)]
    assert len(folds.split(frames)[1]) == 2
    assert "all 10 images share the group dish" in caplog.text


@pytest.mark.parametrize(
    ("frames", "arguments", "problem"),
    [
        (kinds(cort=3), {}, "3 images cannot make 5 folds"),
        (kinds(cort=9), {"folds": 1}, "at least 2"),
        (kinds(cort=9), {"fold": 5}, "fold 5 does not exist; with 5 folds they are 0 to 4"),
        ([*kinds(cort=9), frame("cort3")], {}, "more than once: cort3"),
    ],
)
def test_impossible_splits_are_refused(frames, arguments, problem):
    with pytest.raises(KitError, match=problem):
        folds.split(frames, **arguments)
