"""The viewer's answers for a frame of 337 cells: opened, and with a threshold moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bench_metric import perturbed
from harness import Row, real_data, seconds

from kitlib.data import competition
from kitlib.post.config import PostConfig
from kitlib.records import Frame
from kitlib.viewer.corrected import Corrected
from kitlib.viewer.layers import gather
from kitlib.viewer.session import Session

CELLS = 337


def crowded() -> Frame:
    """The real image with the most cells, with 337 of them."""
    frames = competition.labelled(real_data() / "sartorius-real")
    frame = max(frames, key=lambda each: len(each.cells))
    return replace(frame, cells=tuple(frame.cells)[:CELLS])


def rows():
    """The rows of this module."""
    frame = crowded()
    predicted = perturbed(frame, np.random.default_rng(0))
    layers = gather([frame], {"prediction": [predicted]}, PostConfig(min_area={"default": 0}))
    session = Session(layers, Corrected(layers.frames, None), "as given")
    work = f"a real image of 520 x 704 pixels, {CELLS} true and {len(predicted.cells)} predicted cells"

    def ask(kind: str, score: float) -> object:
        return session.answer({"kind": kind, "id": frame.id, "score": score, "mask": None})

    yield Row("viewer opens a frame", work, seconds(lambda: ask("frame", 0.5)), bar=0.5)
    yield Row("viewer moves a threshold", work, seconds(lambda: ask("thresholds", 0.3)), bar=0.2)
    _, blocks = ask("frame", 0.5)
    size = sum(map(len, blocks)) / 1024
    yield Row("viewer sends a frame", work, size, unit="KiB")
