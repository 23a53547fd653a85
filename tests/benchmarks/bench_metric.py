"""The score of 506 real images, from two CSV files to a number, and to all measures of kit score."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import public
from harness import Row, race, real_data, seconds

from kitlib.data import tables
from kitlib.masks import rle
from kitlib.records import Cell, Frame

SAMPLE = 20  # the peer scores every 20th image


def perturbed(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame's cells moved by up to two pixels each way, one in twenty lost."""
    cells = []
    for cell, box in zip(frame.cells, rle.boxes([c.mask for c in frame.cells]).tolist(), strict=True):
        x, y = (np.array(box[:2]) + rng.integers(-2, 3, 2)).tolist()
        moved = rle.from_crop(rle.crop(cell.mask, box), x, y, frame.height, frame.width)
        if rng.random() < 0.95 and rle.areas([moved])[0]:
            cells.append(Cell(moved, cell.category, float(rng.random())))
    return replace(frame, cells=tuple(cells))


def kit_score(truth: Path, predictions: Path) -> float:
    """`kit score` in a process of its own."""
    command = [sys.executable, "-m", "kitlib.cli", "score", str(truth), str(predictions), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["map"]


_METRIC = """
import sys
from kitlib import metric
from kitlib.data import tables
print(metric.score(*map(tables.iter_cells, sys.argv[1:])).mean)
"""


def metric_alone(truth: Path, predictions: Path) -> float:
    """The competition's metric in a process of its own."""
    command = [sys.executable, "-c", _METRIC, str(truth), str(predictions)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def public_tables(truth: Path, predictions: Path) -> list[tuple[list[str], list[str]]]:
    """The annotations and the predictions of each image."""
    both = zip((truth, predictions), ("annotation", "predicted"), strict=True)
    true, found = (pd.read_csv(path).groupby("id")[column].agg(list) for path, column in both)
    return [(true[image], found[image]) for image in true.index]


def public_score(images: list[tuple[list[str], list[str]]]) -> float:
    """The public way."""
    return float(np.mean([public.score(*image) for image in images]))


def rows():
    """The rows of this module."""
    truth = real_data() / "sartorius-real/extra/train_annotations_no_hidden.csv.gz"
    frames = tables.read_cells(truth)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        predictions = tables.write_predictions(
            Path(folder) / "predictions.csv", [perturbed(frame, rng) for frame in frames]
        )
        images = public_tables(truth, predictions)
        reading = seconds(lambda: public_tables(truth, predictions), rounds=1, warm=False)
        ours, scoring = race(
            lambda: metric_alone(truth, predictions), lambda: public_score(images[::SAMPLE]), rounds=3
        )
        everything = seconds(lambda: kit_score(truth, predictions), rounds=3, warm=False)
    work = (
        f"{len(frames)} images, {sum(len(f.cells) for f in frames):,} masks, CSV to number, a fresh process"
    )
    yield Row("kit score, all measures", work, everything, bar=6)
    yield Row("score", work, ours, bar=3)
    peer = reading + scoring * len(images) / len(images[::SAMPLE])
    work += f"; peer: label maps and histogram2d of every {SAMPLE}th image, times {SAMPLE}, no process start"
    yield Row("score beside label maps", work, ours, peer, bar=10)
