"""Export a folder that the kit reads as data for the runners: images, label images, and who trains on what.

python experiments/peers/prepare.py DATA OUT

The split is the kit's: fold 0 of 5 validates. LIVECell's training images, on which the kit pretrains where
DATA has some, are training images here, since no other tool has a stage for them. OUT/split.json names the
images of each part, OUT/images and OUT/labels hold an array of each, and OUT/validation.npz the true cells of
validation images as the kit has them, which may overlap.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kitlib import files, records
from kitlib.data import dataset, folds, livecell
from kitlib.data.images import read_image
from kitlib.records import Frame


def export(frames: Sequence[Frame], out: Path) -> list[str]:
    """Write an array of pixels and one of labels for each frame; returns their names."""
    pixels, labels = (files.make_folder(out / name) for name in ("images", "labels"))
    for frame in frames:
        if frame.path is not None:
            np.save(pixels / f"{frame.id}.npy", read_image(frame.path, frame.height, frame.width))
            np.save(labels / f"{frame.id}.npy", frame.to_labels().astype(np.int32))
    return [frame.id for frame in frames]


def main() -> None:
    """Export."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    training, validation = folds.split(dataset.open_folder(given.data, only_labelled=True).labelled)
    pretraining = livecell.load(given.data).frames if livecell.splits_in(given.data) else []
    records.write_frames(files.make_folder(given.out) / "validation.npz", validation)
    split = {
        "training": export([frame for frame in [*training, *pretraining] if frame.cells], given.out),
        "validation": export(validation, given.out),
    }
    files.write_json(given.out / "split.json", split)
    print(", ".join(f"{len(names)} {part} images" for part, names in split.items()))


if __name__ == "__main__":
    main()
