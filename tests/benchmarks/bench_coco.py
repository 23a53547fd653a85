"""LIVECell's kind of data, many thousand polygons: read into masks, and held by one training process."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path

from harness import Row, peak_mib, race, seconds
from pycocotools.coco import COCO

from kitlib import records
from kitlib.data import coco
from kitlib.data.synthetic import full_size
from kitlib.masks import rle
from kitlib.model import compat

compat.apply()  # before detectron2 is imported
from detectron2.data import DatasetFromList  # noqa: E402

SHARE = 0.05  # of LIVECell: some 50,000 polygons
REPEATED = 20  # the frames so often are as many as LIVECell has


@cache
def folder() -> Path:
    """A synthetic LIVECell with its polygons, removed when this process ends."""
    place = tempfile.TemporaryDirectory()
    folder.place = place
    return full_size.ensure(Path(place.name) / "cells", share=SHARE, say=lambda text: None)


def annotations() -> Path:
    return folder() / "LIVECell_dataset_2021/annotations/LIVECell/livecell_coco_train.json"


def read_ours() -> list[records.Frame]:
    return coco.read(annotations(), folder() / "LIVECell_dataset_2021/images")


def read_theirs() -> list[dict]:
    """Every polygon as run lengths, as pycocotools itself does it."""
    with contextlib.redirect_stdout(None):
        file = COCO(annotations())
    return [file.annToRLE(annotation) for annotation in file.anns.values()]


def prepare_held_ours():
    """What a training process holds of a million cells that lie in a file."""
    frames = read_ours() * REPEATED
    path = records.write_frames(folder() / "frames.npz", frames)
    del frames
    return lambda: records.read_frames(path)


def prepare_held_theirs():
    """The same frames as detectron2 keeps them, pickled into one array of each process."""
    images = []
    for frame in read_ours():
        cells = [
            {"bbox": box, "bbox_mode": 0, "category_id": 0, "segmentation": dict(cell.mask)}
            for cell, box in zip(frame.cells, rle.boxes([c.mask for c in frame.cells]).tolist(), strict=True)
        ]
        images.append({"file_name": str(frame.path), "height": 520, "width": 704, "annotations": cells})
    return lambda: DatasetFromList(images * REPEATED, serialize=True)


def rows():
    """The rows of this module."""
    frames = read_ours()
    cells = sum(len(frame.cells) for frame in frames)
    work = f"{len(frames)} images, {cells:,} polygons, {annotations().stat().st_size / 1e6:.0f} MB of JSON"
    cores = len(os.sched_getaffinity(0))
    ours, theirs = race(read_ours, read_theirs, rounds=2, warm=False)
    peer = "peer: pycocotools to COCO's run lengths, one core"
    yield Row("COCO file to masks", f"{work}, {cores} cores; {peer}", ours, theirs)
    path = records.write_frames(folder() / "frames.npz", frames)
    again = seconds(lambda: records.read_frames(path))
    yield Row("masks read again", f"{work}, from the frame file; peer: the JSON again", again, theirs, bar=20)
    memory = peak_mib(prepare_held_ours), peak_mib(prepare_held_theirs)
    work = f"{cells * REPEATED:,} cells held by a further training process; detectron2's DatasetFromList"
    yield Row("memory of cells held", work, *memory, unit="MiB", bar=10)
