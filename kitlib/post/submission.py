"""Writing ``submission.csv``; ``check`` finds all that Kaggle would reject in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kitlib import files, rle
from kitlib.errors import KitError
from kitlib.post.checker import COLUMNS, check, disjoint
from kitlib.records import Frame

__all__ = ["check", "write"]


def write(path: Path | str, frames: Sequence[Frame], ids: Sequence[str]) -> Path:
    """Write a submission, atomically.

    Args:
        frames: post-processed predictions (``thresholds.apply``); an image without any may be absent.
        ids: the test images in the order of the sample submission. Each gets its rows, one a cell in the
            order of the cells, or else one row with an empty ``predicted``.

    Raises:
        KitError: a frame that is not among ``ids`` or occurs twice, or one with overlapping cells.
    """
    known, texts = set(ids), {}
    for frame in frames:
        if frame.id in texts or frame.id not in known:
            why = "has predictions twice" if frame.id in texts else "is not a test image"
            raise KitError(f"{path} was not written: image {frame.id} {why}; submit each test image once")
        texts[frame.id] = list(filter(None, rle.to_texts([c.mask for c in frame.cells])))
        if not disjoint(texts[frame.id]):
            raise KitError(f"{path} was not written: cells of image {frame.id} overlap; post-process it")
    rows = [(image, text) for image in ids for text in texts.get(image) or [""]]
    return files.write_csv(path, pd.DataFrame(rows, columns=list(COLUMNS)))
