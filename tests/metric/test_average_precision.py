"""COCO's average precision, against pycocotools' own evaluation."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kitlib.masks import rle
from kitlib.metric.average_precision import average_precision, by_type, detections, mean_over_types
from kitlib.metric.comparison import compare
from kitlib.metric.matching import pairs
from kitlib.records import Cell, Frame


def frames(
    rng: np.random.Generator, types: tuple[str, ...], count: int = 4
) -> tuple[list[Frame], list[Frame]]:
    """True frames of boxes, and predictions around them, with scores of which many are equal."""
    truth, found = [], []
    for name in map(str, range(count)):
        cells = [box(rng, rng.choice(types)) for _ in range(rng.integers(0, 12))]
        near = [moved(rng, cell, rng.choice(types)) for cell in cells for _ in range(rng.integers(0, 4))]
        truth.append(Frame(name, None, 40, 60, tuple(c for c, _ in cells)))
        found.append(Frame(name, None, 40, 60, tuple(near)))
    return truth, found


def box(rng: np.random.Generator, kind: str) -> tuple[Cell, tuple[int, ...]]:
    x, y, width, height = *rng.integers(0, 30, 2), *rng.integers(2, 14, 2)
    mask = rle.from_crop(np.ones((height, width)), int(x), int(y), 40, 60)
    return Cell(mask, str(kind)), (int(x), int(y), int(width), int(height))


def moved(rng: np.random.Generator, cell: tuple[Cell, tuple[int, ...]], kind: str) -> Cell:
    x, y, width, height = cell[1]
    dx, dy = rng.integers(0, 3, 2).tolist()
    mask = rle.from_crop(np.ones((height, width)), x + dx, y + dy, 40, 60)
    return Cell(mask, cell[0].category if rng.random() < 0.7 else str(kind), round(rng.random(), 2))


def document(frames: list[Frame], types: list[str]) -> dict:
    annotations = []
    for frame in frames:
        for cell in frame.cells:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": int(frame.id),
                    "category_id": types.index(cell.category) + 1,
                    "segmentation": rle.to_coco(cell.mask),
                    "area": int(rle.areas([cell.mask])[0]),
                    "iscrowd": 0,
                    "score": cell.confidence,
                }
            )
    images = [{"id": int(frame.id), "height": frame.height, "width": frame.width} for frame in frames]
    categories = [{"id": n, "name": name} for n, name in enumerate(types, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def peer(truth: list[Frame], found: list[Frame], types: list[str], use_categories: bool) -> np.ndarray:
    """Precisions (10, 101, K) by pycocotools; -1 for a class without true cells."""
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for frames_ in (truth, found):
            side = COCO()
            side.dataset = document(frames_, types)
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "segm")
        evaluation.params.useCats = int(use_categories)
        evaluation.params.maxDets = [2000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0, 0]


def mean(precisions: np.ndarray) -> float | None:
    known = precisions[precisions > -1]
    return float(known.mean()) if known.size else None


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_it_is_that_of_pycocotools(seed: int) -> None:
    truth, found = frames(np.random.default_rng(seed), ("astro", "cort", "shsy5y"))
    names = sorted({cell.category for frame in truth for cell in frame.cells})
    ours = compare(truth, found)
    if not ours.scored:
        assert ours.all.coco_ap is None
        return
    types = sorted({*names, *(cell.category for frame in found for cell in frame.cells)})
    typed = {cell.category for frame in found for cell in frame.cells} & set(names)
    expected = peer(truth, found, types, bool(typed))
    assert ours.all.coco_ap == pytest.approx(mean(expected), abs=1e-9)
    assert ours.all.coco_ap_50 == pytest.approx(mean(expected[0]), abs=1e-9)
    if typed:
        for name, quality in ours.by_type.items():
            assert quality.coco_ap == pytest.approx(mean(expected[..., types.index(name)]), abs=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_without_types_it_is_that_of_pycocotools_without_categories(seed: int) -> None:
    truth, found = frames(np.random.default_rng(seed), ("cort",))
    untyped = [
        Frame(f.id, None, 40, 60, tuple(Cell(c.mask, "cell", c.score) for c in f.cells)) for f in found
    ]
    ours = compare(truth, untyped)
    if ours.scored:
        expected = peer(truth, untyped, ["cell", "cort"], use_categories=False)
        assert ours.all.coco_ap == pytest.approx(mean(expected), abs=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_by_type_it_is_that_of_pycocotools(seed: int) -> None:
    types = ["astro", "cort", "shsy5y"]
    truth, found = frames(np.random.default_rng(seed), ("astro", "cort"))
    ours = by_type(truth, found[:-1])
    expected = peer(truth, found[:-1], types, use_categories=True)
    for number, name in enumerate(types):
        value = mean(expected[..., number])
        assert name not in ours if value is None else ours[name].mean == pytest.approx(value, abs=1e-9)
    whole, theirs = mean_over_types(ours), mean(expected)
    assert (whole is None) == (theirs is None)
    assert whole is None or whole.mean == pytest.approx(theirs, abs=1e-9)


def bars(*runs: tuple[int, int]) -> list[rle.RLE]:
    return [rle.from_runs(np.array([start]), np.array([length]), 1, 400) for start, length in runs]


def test_by_hand() -> None:
    """The best prediction is wrong, the next two are right: precision 1/2 and then 2/3 at full recall."""
    truth, found = bars((0, 10), (20, 10)), bars((50, 10), (0, 10), (20, 10))
    image = detections(pairs(truth, found), np.array([0.9, 0.8, 0.7]), 2)
    result = average_precision([image])
    assert result is not None
    assert result.mean == pytest.approx(2 / 3)
    assert average_precision([detections(pairs([], found), np.ones(3), 0)]) is None
    assert average_precision([detections(pairs(truth, []), np.zeros(0), 2)]) == (0.0, 0.0)


def test_no_more_than_two_thousand_predictions_of_an_image_count() -> None:
    """2,000 wrong predictions of a higher score leave no room for the right one."""
    truth, found = bars((0, 10)), bars(*[(50, 10)] * 2000, (0, 10))
    scores = np.append(np.full(2000, 0.9), 0.8)
    assert average_precision([detections(pairs(truth, found), scores, 1)]) == (0.0, 0.0)
    few = detections(pairs(truth, found[1:]), scores[1:], 1)
    assert average_precision([few]) == pytest.approx((1 / 2000, 1 / 2000))
