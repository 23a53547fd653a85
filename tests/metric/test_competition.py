"""The competition's metric, against geometry worked out by hand and the label maps of public notebooks."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import metric
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def bar(start: int, length: int) -> rle.RLE:
    """A run of pixels in a frame of one row: IoUs of bars are ratios of lengths."""
    return rle.from_runs(np.array([start]), np.array([length]), 1, 400)


def frame(name: str, *bars: tuple[int, int], category: str = "cort") -> Frame:
    return Frame(name, None, 1, 400, tuple(Cell(bar(*b), category) for b in bars), category)


@pytest.mark.parametrize(
    ("shift", "hits"),
    [
        (0, 10),  # IoU 1 passes all ten
        (1, 10),  # 99 / 101 = .980
        (5, 9),  # 95 / 105 = .905 fails .95 alone
        (20, 4),  # 80 / 120 = .667 passes .50 .55 .60 .65
        (33, 1),  # 67 / 133 = .504 passes .50
        (34, 0),  # 66 / 134 = .493
        (200, 0),  # apart
    ],
)
def test_a_shifted_cell_passes_the_thresholds_below_its_iou(shift: int, hits: int) -> None:
    score = metric.score([frame("a", (0, 100))], [frame("a", (shift, 100))])
    assert score.mean == pytest.approx(hits / 10)
    assert [c.tp for c in score.counts] == [1] * hits + [0] * (10 - hits)
    assert [c.fp for c in score.counts] == [c.fn for c in score.counts] == [0] * hits + [1] * (10 - hits)


@pytest.mark.parametrize("part", range(10, 20))
def test_an_iou_of_exactly_the_threshold_is_no_match(part: int) -> None:
    """IoU part / 20: passes every threshold below it, not its own."""
    score = metric.score([frame("a", (0, 20))], [frame("a", (0, part))])
    assert [c.tp for c in score.counts] == [1] * (part - 10) + [0] * (20 - part)


def test_precision_counts_surplus_and_missed_cells() -> None:
    truth = [frame("a", (0, 50), (100, 50), (200, 50))]
    found = [frame("a", (0, 50), (300, 50))]
    score = metric.score(truth, found)
    assert score.mean == pytest.approx(1 / 4)  # 1 right, 1 wrong, 2 missed
    assert score.counts[0] == (0.5, 1, 1, 2)


def test_images_count_alike_however_many_cells_they_have() -> None:
    truth = [frame("a", (0, 10)), frame("b", *((20 * i, 10) for i in range(10)), category="astro")]
    score = metric.score(truth, [frame("a", (0, 10))])
    assert score.mean == pytest.approx(0.5)
    assert score.by_image == {"a": 1.0, "b": 0.0}
    assert score.by_category == {"astro": 0.0, "cort": 1.0}
    assert score.by_threshold == {t / 100: 0.5 for t in range(50, 100, 5)}


def test_types_play_no_part() -> None:
    truth, found = [frame("a", (0, 10))], [frame("a", (0, 10), category="astro")]
    assert metric.score(truth, found).mean == 1.0


def test_an_image_without_cells() -> None:
    assert metric.score([frame("a")], [frame("a")]).mean == 1.0
    assert metric.score([frame("a")], []).mean == 1.0
    assert metric.score([frame("a")], [frame("a", (0, 5))]).mean == 0.0


def test_overlapping_truth_is_matched_one_to_one() -> None:
    """Two true cells of IoU 0.9 and one prediction between them: one match, one missed."""
    truth = [frame("a", (0, 95), (5, 95))]
    score = metric.score(truth, [frame("a", (2, 95))])
    assert score.counts[0] == (0.5, 1, 0, 1)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=6), st.randoms())
def test_the_order_of_cells_does_not_matter(bars: list[tuple[int, int]], random) -> None:
    moved = [(start + random.randint(0, 9), length) for start, length in bars]
    shuffled = random.sample(moved, len(moved))
    first = metric.score([frame("a", *bars)], [frame("a", *moved)])
    assert metric.score([frame("a", *bars[::-1])], [frame("a", *shuffled)]) == first


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=6, unique=True))
def test_truth_scores_one_against_itself_overlapping_or_not(bars: list[tuple[int, int]]) -> None:
    assert metric.score([frame("a", *bars)], [frame("a", *bars)]).mean == 1.0


def test_predictions_without_truth_are_refused() -> None:
    with pytest.raises(KitError, match="1 images without truth, the first is 'b'"):
        metric.score([frame("a", (0, 5))], [frame("b", (0, 5))])


def test_predictions_of_another_size_are_refused() -> None:
    """pycocotools gives them an IoU of -1, which would pass for a miss."""
    taller = replace(frame("a"), height=2)
    with pytest.raises(
        KitError, match="'a' are of a frame 400 wide, 2 high, but the true one is 400 wide, 1 high"
    ):
        metric.score([frame("b"), frame("a", (0, 5))], [taller])
    with pytest.raises(KitError, match="no true frame"):
        metric.score([], [])


def label_map_score(truth: list[np.ndarray], predicted: list[np.ndarray], shape: tuple[int, int]) -> float:
    """The public notebooks' way, right where neither side overlaps: label maps and a joint histogram."""
    maps = []
    for masks in (truth, predicted):
        labels = np.zeros(shape, np.int32)
        for number, mask in enumerate(masks, 1):
            labels[mask] = number
        maps.append(labels)
    bins = [np.arange(len(truth) + 2) - 0.5, np.arange(len(predicted) + 2) - 0.5]
    common = np.histogram2d(maps[0].ravel(), maps[1].ravel(), bins)[0]
    union = common.sum(1, keepdims=True) + common.sum(0, keepdims=True) - common
    iou = (common / np.maximum(union, 1))[1:, 1:]
    precisions = []
    for threshold in np.arange(0.5, 1.0, 0.05):
        tp = (iou > threshold).sum()
        precisions.append(tp / (len(truth) + len(predicted) - tp))
    return float(np.mean(precisions))


def disjoint(cells: list[rle.RLE]) -> list[np.ndarray]:
    """Masks cut so that none overlaps an earlier one."""
    taken, kept = np.zeros(rle.height_width(cells[0]), bool), []
    for cell in cells:
        mask = rle.to_mask(cell) & ~taken
        taken |= mask
        if mask.any():
            kept.append(mask)
    return kept


def test_real_images_score_as_the_public_label_map_way(real_competition: Path) -> None:
    from kitlib.data import competition

    rng = np.random.default_rng(0)
    for real in competition.labelled(real_competition)[:6]:
        truth = disjoint([c.mask for c in real.cells])
        shifts = rng.integers(-2, 3, (len(truth), 2))
        moved = [np.roll(m, s, (0, 1)) for m, s in zip(truth, shifts, strict=True)]
        predicted = disjoint([rle.from_mask(m) for m in moved])[::2]
        frames = [
            replace(real, cells=tuple(Cell(rle.from_mask(m), "x") for m in side))
            for side in (truth, predicted)
        ]
        expected = label_map_score(truth, predicted, (real.height, real.width))
        assert metric.score(frames[:1], frames[1:]).mean == pytest.approx(expected, abs=1e-12)
        assert 0 < expected < 1


# ------------------------------------------------------------------------------------------- in step

TRUTH = [frame("a", (0, 10)), frame("b", (0, 10), (20, 10), category="astro"), frame("c"), frame("d", (5, 9))]
FOUND = [frame("a", (0, 9)), frame("b", (20, 10)), frame("c", (0, 5))]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_frames_that_are_scored_as_they_come_score_alike(order: tuple[int, ...]) -> None:
    predictions = [FOUND[i] for i in order]
    assert metric.score(iter(TRUTH), iter(predictions)) == metric.score(TRUTH, FOUND)
    expected = metric.score(TRUTH[::-1], FOUND)
    assert metric.score(iter(TRUTH[::-1]), iter(predictions)) == expected
    assert list(expected.by_image) == ["d", "c", "b", "a"]


def test_frames_in_the_same_order_are_not_held() -> None:
    alive = weakref.WeakSet()
    most = 0

    class Watched(Frame):
        __slots__ = ("__weakref__",)

    def watched():
        nonlocal most
        for number in range(50):
            each = Watched(str(number), None, 1, 400)
            alive.add(each)
            most = max(most, len(alive))
            yield each
            del each

    assert metric.score(watched(), watched()).mean == 1.0
    assert most <= 6


def test_in_step_the_same_is_refused() -> None:
    with pytest.raises(KitError, match="1 images without truth, the first is 'c'"):
        metric.score(iter(TRUTH[:2]), iter(FOUND))
    with pytest.raises(KitError, match="'a' are of a frame 400 wide, 2 high"):
        metric.score(iter(TRUTH), iter([replace(FOUND[0], height=2)]))
    with pytest.raises(KitError, match="no true frame"):
        metric.score(iter([]), iter([]))


# ------------------------------------------------------------------------ bootstrap intervals


def test_an_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    low, high = metric.interval(values)
    error = values.std() / 20
    assert (low, high) == pytest.approx(values.mean() + 1.645 * error * np.array([-1, 1]), abs=0.001)


def test_intervals_of_constant_and_single_values():
    assert metric.interval([0.4] * 7) == pytest.approx((0.4, 0.4))
    assert metric.interval([0.2]) == (0.2, 0.2)


def test_the_seed_decides_which_means_are_drawn():
    values = [0.1, 0.5, 0.9]
    assert (metric.means(values, 1) == metric.means(values, 1)).all()
    assert (metric.means(values, 1) != metric.means(values, 2)).any()
    assert set(np.round(metric.means(values, 0) * 3, 6)) <= set(np.round(np.arange(0.3, 2.8, 0.4), 6))
