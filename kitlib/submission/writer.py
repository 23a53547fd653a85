"""Writing ``submission.csv``; ``check`` finds all that Kaggle would reject in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kitlib import files
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Frame
from kitlib.submission.checker import COLUMNS, check, disjoint

__all__ = ["check", "write"]


def write(path: Path | str, frames: Sequence[Frame], test: Sequence[Frame]) -> Path:
    """Write a submission, atomically; what ``check`` finds wrong is not written.

    Args:
        path: the file to write.
        frames: post-processed predictions (``thresholds.apply``); an image without any may be absent.
        test: the test images in the order of their rows. Each gets its rows, one a cell in the order of the
            cells, or else one row with an empty ``predicted``.

    Raises:
        KitError: a frame that is not among ``test`` or occurs twice, or one with overlapping cells; an
            earlier file is intact.
    """
    known, texts = {f.id for f in test}, {}
    for frame in frames:
        if frame.id in texts or frame.id not in known:
            why = "has predictions twice" if frame.id in texts else "is not a test image"
            raise KitError(f"{path} was not written: image {frame.id} {why}; submit each test image once")
        texts[frame.id] = list(filter(None, rle.to_texts([c.mask for c in frame.cells])))
        if not disjoint(texts[frame.id]):
            raise KitError(f"{path} was not written: cells of image {frame.id} overlap; post-process it")
    rows = [(image.id, text) for image in test for text in texts.get(image.id) or [""]]
    with files.atomic(path) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
        problems = check(temporary, test, guess=False)
        if problems:
            more = f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
            raise KitError(f"{path} was not written: {problems[0]}{more}")
    return Path(path)
