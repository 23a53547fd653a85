"""Boxes that several sources see, fused.

It needs the peer: pip install ensemble-boxes
"""

from __future__ import annotations

from functools import cache

import numpy as np
from bench_predict import CELLS, instances
from harness import Row, Skip, race

from kitlib.predict import fuse
from kitlib.predict.detections import Detections

SOURCES = 8


@cache
def seen_by_all() -> Detections:
    """The crowd as several sources see it, each a little elsewhere."""
    rng, found = np.random.default_rng(1), Detections.from_instances(instances())
    parts = []
    for source in range(SOURCES):
        boxes = (found.boxes + rng.normal(0, 1, found.boxes.shape)).clip(0, 703)
        scores = (found.scores + rng.normal(0, 0.05, len(found))).clip(0.01, 1)
        parts.append(Detections(boxes, scores, found.classes, found.squares, np.full(len(found), source)))
    return Detections.concat(parts)


def fuse_ours() -> fuse.Fused:
    """Weighted boxes fusion with its scores, classes, agreement and members."""
    return fuse.wbf(seen_by_all(), SOURCES, 0.55)


def fuse_theirs(fusion) -> tuple:
    """The same by the package of the method's authors, which fuses boxes alone."""
    found = seen_by_all()
    parts = [found.take(found.sources == s) for s in range(SOURCES)]
    boxes = [p.boxes / 704 for p in parts]
    return fusion(boxes, [p.scores for p in parts], [p.classes for p in parts], iou_thr=0.55)


def rows():
    """The rows of this module."""
    try:
        from ensemble_boxes import weighted_boxes_fusion
    except ImportError as error:
        raise Skip(f"{error}; pip install ensemble-boxes") from error
    times = race(fuse_ours, lambda: fuse_theirs(weighted_boxes_fusion), 3)
    yield Row("boxes fused", f"{SOURCES} sources of {CELLS} cells; ensemble-boxes", *times, bar=1)
