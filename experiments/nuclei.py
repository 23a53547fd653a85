"""Fluorescence nuclei: trained, tuned on images kept aside, and the submission of the test images.

python experiments/nuclei.py DATA OUT [--iterations 700] [--seed 0]

DATA holds train/images, train/labels (label images) and test/images. One image in eight is kept aside; what
tuning makes of the predictions in them is judged by cross-validation. Writes OUT/submission.csv,
OUT/post.yaml and OUT/judged.json. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from ablation import LEVELS, predicted, show

from kitlib import config, files, metric, records, train
from kitlib.data import folds
from kitlib.data.dataset import open_folder
from kitlib.data.images import image_files, whole_size
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.post import thresholds
from kitlib.post.tuning import cross_validation
from kitlib.predict import PredictConfig
from kitlib.records import Frame
from kitlib.submission import writer

MODEL = {"pixel_mean": 13.0, "pixel_std": 15.0, "anchor_sizes": [[10], [20], [40], [80], [160]]}
VIEWS = AugmentConfig(scale=(0.9, 1.6), crop=(256, 256), brightness=0.3, contrast=0.3, gamma=0.2)
LOOKS = PredictConfig(scales=(1.0, 1.4), tta=("none", "flip_h"), candidate_mask_thresholds=(0.5, *LEVELS))


def split(data: Path) -> tuple[list[Frame], list[Frame]]:
    """The images that train, and those that are kept aside."""
    return folds.split(open_folder(data).labelled, 0, 8)


def fit(frames: list[Frame], aside: list[Frame], out: Path, iterations: int, seed: int) -> Path:
    """The weights of the small model, from random ones."""
    settings = train.TrainConfig(
        out=str(out),
        train=str(records.write_frames(out / "train.npz", frames)),
        val=str(records.write_frames(out / "val.npz", aside)),
        categories=("cell",),
        model=ModelConfig("tiny", num_classes=1, options=MODEL),
        augment=VIEWS,
        schedule=train.ScheduleConfig("cosine", max_lr=8e-4, min_lr=1e-5, warmup_iters=50),
        optim=train.OptimConfig("adamw", weight_decay=0.01, clip_norm=5.0),
        ema_decay=0.99,
        predict=PredictConfig(scales=LOOKS.scales[:1]),
        max_iter=iterations,
        checkpoint_every=100,
        workers=1,
        seed=seed,
    )
    return train.run(settings).best


def main() -> None:
    """Train, tune, predict, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--iterations", type=int, default=700)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    out = files.make_folder(given.out)
    frames, aside = split(given.data)
    test = [Frame(n, p, *whole_size(p)) for n, p in image_files(given.data / "test/images").items()]
    models = [str(fit(frames, aside, out, given.iterations, given.seed))]

    judged = cross_validation.cross_validate(aside, predicted(models, aside, out / "aside", LOOKS))
    show(judged.rows)
    config.save(judged.tuned, out / "post.yaml")
    by_threshold = metric.score(aside, judged.frames).by_threshold
    files.write_json(out / "judged.json", {"rows": [asdict(r) for r in judged.rows], "by_iou": by_threshold})
    print(f"mean precision of IoU .50 to .90: {np.mean(list(by_threshold.values())[:9]):.3f}")

    post = judged.tuned.post
    looks = replace(LOOKS, candidate_mask_thresholds=(), mask_threshold=post.mask_threshold)
    (instances,) = predicted(models, test, out / "test", looks).values()
    done = [thresholds.apply(frame, post) for frame in instances]
    print(writer.write(out / "submission.csv", done, test))


if __name__ == "__main__":
    main()
