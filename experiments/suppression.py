"""What mask NMS is worth on held-out nuclei: in place of weighted boxes fusion, and after it.

python experiments/suppression.py DATA OUT MODEL [MODEL ...]

DATA is a folder of images and label images. Each MODEL is a checkpoint of its fold 0 (``kit run --profile cpu
--data DATA --to 03 --set 03.fold=0``), of runs that differ in ``03.max_iter``, say; not in ``03.seed``, which
also draws the folds. Of the images that fold 0 held out, those up to 360 pixels wide are predicted in one
view, by the first model and by all together. The score threshold of an image is the one that is best on the
other folds. Writes OUT/suppression.json: the metric of each variant, and what it gains over the first one of
its kind, with 90 % bootstrap intervals over images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ablation import predicted
from numpy.typing import NDArray

from kitlib import files, metric
from kitlib.data import folds
from kitlib.data.dataset import open_folder
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.predict import PredictConfig
from kitlib.records import Frame

THRESHOLDS = np.arange(0.1, 0.96, 0.05).round(2).tolist()
MASK_NMS = (0.15, 0.1, 0.05)
WIDEST = 360  # pixels; what is wider takes most of the time


def by_image(truth: Sequence[Frame], found: Sequence[Frame], mask_nms: float) -> NDArray[np.float64]:
    """The metric of each image, (N,), at the score threshold that is best on the other folds."""
    scores = []
    for threshold in THRESHOLDS:
        post = PostConfig(score_threshold={"default": threshold}, mask_nms={"default": mask_nms})
        frames = [thresholds.apply(frame, post) for frame in found]
        scores.append(list(metric.score(truth, frames).by_image.values()))
    table, judged = np.array(scores), np.empty(len(truth))
    assigned = folds.assign(truth)
    fold = np.array([assigned[frame.id] for frame in truth])
    for k in np.unique(fold):
        judged[fold == k] = table[table[:, fold != k].mean(axis=1).argmax(), fold == k]
    return judged


def main() -> None:
    """Predict, judge, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("models", nargs="+")
    given = options.parse_args()
    held_out = folds.split(open_folder(given.data).labelled, 0)[1]
    truth, rows = [frame for frame in held_out if frame.width <= WIDEST], []
    for name, models, fuse in (
        ("one model", given.models[:1], "wbf"),
        ("all models", given.models, "wbf"),
        ("all models, mask NMS in fusion", given.models, "nms"),
    ):
        (found,) = predicted(models, truth, given.out / name, PredictConfig(fuse=fuse)).values()
        for mask_nms in (1.0, *MASK_NMS):
            judged = by_image(truth, found, mask_nms)
            if fuse == "wbf" and mask_nms == 1:
                plain = judged
            rows.append(
                {
                    "name": f"{name}, mask_nms {mask_nms:g}",
                    "mean": float(judged.mean()),
                    "interval": metric.interval(judged),
                    "gain": float((judged - plain).mean()),
                    "gain_interval": metric.interval(judged - plain),
                }
            )
            print(rows[-1])
    files.write_json(given.out / "suppression.json", {"images": len(truth), "rows": rows})


if __name__ == "__main__":
    main()
