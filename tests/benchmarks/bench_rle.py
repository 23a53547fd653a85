"""Masks from and to text: all at once beside one by one."""

from __future__ import annotations

import numpy as np
import public
from harness import Row, race, real_data
from numpy.typing import NDArray

from kitlib.data import tables
from kitlib.masks import rle

CELLS = 337  # as many as the median frame of SH-SY5Y holds
SAMPLE = 40  # the peer parses every 40th annotation


def crowd() -> NDArray[np.int32]:
    """A label map of 337 discs of 240 pixels, which cover parts of each other."""
    labels = np.zeros(public.SIZE, np.int32)
    rng, (y, x) = np.random.default_rng(0), np.indices(public.SIZE)
    for number in range(1, CELLS + 1):
        row, column = rng.uniform(0, public.SIZE)
        labels[(y - row) ** 2 + (x - column) ** 2 < 240 / np.pi] = number
    return labels


def parse_row() -> Row:
    """Real annotations from text, as masks."""
    frames = tables.read_cells(real_data() / "sartorius-real/extra/train_annotations_no_hidden.csv.gz")
    texts = rle.to_texts([cell.mask for frame in frames for cell in frame.cells])
    heights, widths = ([side] * len(texts) for side in public.SIZE)
    ours, peer = race(
        lambda: rle.parse_all(texts, heights, widths),
        lambda: [public.rle_decode(text) for text in texts[::SAMPLE]],
        rounds=3,
    )
    work = f"{len(texts):,} real annotations; rle_decode of every {SAMPLE}th, times {SAMPLE}"
    return Row("annotations to masks", work, ours, peer * len(texts) / len(texts[::SAMPLE]), bar=5)


def rows():
    """The rows of this module."""
    labels = crowd()
    present = np.unique(labels)[1:]
    work = f"{len(present)} cells of a 704 x 520 label map"
    times = race(lambda: rle.from_labels(labels), lambda: [rle.from_mask(labels == n) for n in present], 5)
    yield Row("label map to masks", f"{work}; one pass an instance", *times, bar=20)
    times = race(
        lambda: rle.to_texts(rle.from_labels(labels)),
        lambda: [public.rle_encode(labels == n) for n in present],
        rounds=3,
    )
    yield Row("label map to texts", f"{work}; rle_encode of each", *times, bar=20)
    yield parse_row()
