"""The folders of finished runs, small enough to be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from kitlib import config, files, records
from kitlib.data import tables
from kitlib.masks import rle
from kitlib.post.config import PostConfig, Tuned
from kitlib.records import Cell, Frame
from kitlib.stages import notebooks
from kitlib.stages.record import Record

#: Corners of squares of 10 x 10 pixels: a cell moved by two pixels has an IoU of 80 / 120 with the true one,
#: which passes 4 of the 10 thresholds; one moved by ten has none.
TRUTH = {"a": [(0, 0)], "b": [(5, 5)], "c": [(20, 10)]}
MACHINE = {"CPU": "a <fast> one, 2 cores", "GPUs": "none"}


def square(x: int, y: int) -> rle.RLE:
    return rle.from_runs([(y + row) * 40 + x for row in range(10)], [10] * 10, 30, 40)


def frame(name: str, corners: Sequence[tuple[int, int]], score: float | None = None) -> Frame:
    category = "cort" if name == "a" else "astro"
    cells = tuple(Cell(square(*corner), category, score) for corner in corners)
    return Frame(name, None, 30, 40, cells, category)


def moved(corners: Sequence[tuple[int, int]], by: int) -> list[tuple[int, int]]:
    return [(x + by, y) for x, y in corners]


class Runs:
    """Makes runs in a folder.

    ``runs("demo", {"a": 0, "b": 2, "c": 20})`` makes one that predicts each image's cells moved by so much;
    an image that is not named did not validate.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, moves: dict[str, int], **parameters: Any) -> Path:
        run = self.folder / name
        truth = [frame(image, TRUTH[image]) for image in moves]
        found = [frame(image, moved(TRUTH[image], by), 0.9) for image, by in moves.items()]
        stage = run / "03_train"
        records.write_frames(stage / "fold_0" / "val.npz", truth)
        tables.write_predictions(stage / "out_of_fold.csv", found)
        curves = {"iteration": [1, 2], "total_loss": [3.0, 2.0], "loss_mask_stage0": [1.0, 0.5]}
        pd.DataFrame(curves).to_csv(stage / "fold_0" / "curves.csv", index=False)
        config.save(Tuned(PostConfig(), 0.7, 0.4, 1.0), stage / "post.yaml")
        self.finish(
            run,
            "03_train",
            {"map": 0.7, "by_type": {"astro": 0.2, "cort": 1.0}, "weights": ["fold_0/weights_best.pth"]},
            parameters,
        )
        return run

    def finish(
        self, run: Path, stage: str, metrics: dict[str, Any], parameters: dict[str, Any] | None = None
    ) -> None:
        """Finish a stage of a run with the notebook's own parameters but for those given."""
        given = {**notebooks.parameters(notebooks.notebook(stage)), "out": str(run), **(parameters or {})}
        files.write_json(run / stage / "metrics.json", {"stage": stage, **metrics})
        Record("key", True, 90.0, given, profile="demo", machine=MACHINE).save(run / stage)

    def picture(self, run: Path, stage: str, name: str) -> Path:
        path = run / stage / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), "teal").save(path)
        return path


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    return Runs(tmp_path / "outputs")
