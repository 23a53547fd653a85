"""From instances to a checked submission: overlap, tuning, checking."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import bench_predict
import numpy as np
import torch
from harness import Row, peak_mib, race, seconds

from kitlib import metric
from kitlib.masks import rle
from kitlib.post import overlap, thresholds
from kitlib.post.config import PostConfig
from kitlib.post.tuning import search
from kitlib.records import Cell, Frame
from kitlib.submission import writer

SIZE = bench_predict.SIZE
CELLS = 800


@cache
def crowd() -> list[Cell]:
    """The cells of a crowded frame, overlapping."""
    return bench_predict.paste_ours(CELLS)


def overlap_ours() -> list:
    """Disjoint RLEs of the crowd."""
    return overlap.resolve(crowd(), *SIZE, split="keep_all")


def overlap_theirs() -> list:
    """The usual way: full-frame masks, best first, each clipped by all that came before."""
    cells = sorted(crowd(), key=lambda c: -c.score)
    masks, taken, kept = np.stack([rle.to_mask(c.mask) for c in cells]), np.zeros(SIZE, bool), []
    for mask in masks:
        left = mask & ~taken
        if mask.sum() - left.sum() <= 0.3 * mask.sum() and left.any():
            taken |= left
            kept.append(rle.from_mask(left))
    return kept


def prepare_overlap_ours():
    crowd()
    return overlap_ours


def prepare_overlap_theirs():
    crowd()
    return overlap_theirs


def held_out(frames: int) -> tuple[list[Frame], list[Frame]]:
    """Truth, and predictions the worse the lower their score: 85 cells and 250 predictions a frame."""
    rng = np.random.default_rng(1)
    base = rle.boxes([c.mask for c in crowd()])
    disc = np.hypot(*np.mgrid[-9:10, -9:10]) < 9
    truth, predictions = [], []
    for number in range(frames):
        chosen, category = base[rng.choice(len(base), 85, False)], ("astro", "cort", "shsy5y")[number % 3]
        cells, found = [], []
        for x, y, *_ in chosen.tolist():
            cells.append(Cell(rle.from_crop(disc, x, y, *SIZE), category))
            for shift in rng.integers(0, 10, 3).tolist():
                score = float(np.clip(0.9 - 0.08 * shift + rng.normal(0, 0.1), 0.05, 1))
                found.append(Cell(rle.from_crop(disc, x + shift, y, *SIZE), category, score))
        truth.append(Frame(str(number), None, *SIZE, tuple(cells), category))
        predictions.append(replace(truth[-1], cells=tuple(found)))
    return truth, predictions


def tune_theirs(truth: list[Frame], predictions: list[Frame]) -> float:
    """Post-process and score afresh at each threshold, all else fixed."""
    configs = [
        PostConfig(score_threshold={"default": s}, min_area={"default": 0}) for s in search.SCORE_THRESHOLDS
    ]
    return max(rescore_all(truth, predictions, config) for config in configs)


def rescore_all(truth: list[Frame], predictions: list[Frame], config: PostConfig) -> float:
    """The score of frames post-processed afresh."""
    return metric.score(truth, [thresholds.apply(p, config) for p in predictions]).mean


def write_submission(path: Path, images: int, cells: int) -> list[Frame]:
    """A sound submission; returns the test frames."""
    texts = [rle.to_text(c.mask) for c in overlap_ours()[:cells]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "predicted"])
        writer.writerows([f"{i:012x}", text] for i in range(images) for text in texts)
    return [Frame(f"{i:012x}", None, *SIZE) for i in range(images)]


def check_theirs(path: Path) -> bool:
    """The usual overlap check: count each image's pixels on a full frame."""
    frames: dict[str, np.ndarray] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            frame = frames.setdefault(row["id"], np.zeros(SIZE[0] * SIZE[1], np.uint8))
            numbers = list(map(int, row["predicted"].split()))
            for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
                frame[start - 1 : start - 1 + length] += 1
    return all(f.max() <= 1 for f in frames.values())


def rows():
    """The rows of this module."""
    torch.set_num_threads(1)
    work = f"{CELLS} cells of a 704 x 520 frame"
    yield Row("overlap resolved", f"{work}; full-frame masks", *race(overlap_ours, overlap_theirs, 3), bar=3)
    memory = peak_mib(prepare_overlap_ours), peak_mib(prepare_overlap_theirs)
    yield Row("memory of resolved overlap", f"{work}; full-frame masks", *memory, unit="MiB", bar=10)
    truth, predictions = held_out(121)
    few = truth[:12], predictions[:12]
    times = race(lambda: search.tune(*few), lambda: tune_theirs(*few), 1, warm=False)
    work = "12 frames of 250 instances; one threshold for all, rescored"
    yield Row("thresholds tuned", work, *times, bar=1)
    config = PostConfig()
    scorers = search.scorers(truth, predictions, config)
    alone = seconds(lambda: search.tune_by_category(scorers, config), 1, warm=False)
    yield Row("all tuned", "121 frames of 250 instances, every threshold by type", alone, bar=60)
    work = "one score threshold tried on 121 frames of 250 instances"
    trial = seconds(lambda: search.mean_score(scorers, config))
    yield Row("a trial of the tuner", work, trial, bar=0.05)
    afresh = seconds(lambda: rescore_all(truth, predictions, config), 1, warm=False)
    yield Row("a trial beside rescoring", f"{work}; peer: apply and score afresh", trial, afresh, bar=20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        test = write_submission(path, 240, 340)
        times = race(lambda: writer.check(path, test), lambda: check_theirs(path), 1, warm=False)
    yield Row("submission checked", "240 images of 340 cells; peer: pixel counts only", *times)
