"""Can the small model learn four real frames by heart? If not, something in the training is broken.

python experiments/overfit.py DATA [--out DIR] [--iterations N] [--scale S]

DATA is the competition's folder (the four cort frames with the fewest cells are learned), or one with
images/ and labels/ (of frames up to 300 pixels long with 10 to 30 cells, the four whose smallest cell is
largest).
Trains ``tiny`` from random weights on the CPU, on whole frames without flips or turns, and scores it on the
same four frames as it goes. Prints the curve; exits 1 where the training score stays at 0.8 or below.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from kitlib import train
from kitlib.data import competition
from kitlib.data.dataset import open_folder
from kitlib.data.images import read_image
from kitlib.inputs.config import AugmentConfig
from kitlib.masks import rle
from kitlib.model.presets import ModelConfig
from kitlib.predict import PredictConfig
from kitlib.records import Frame, write_frames

BAR = 0.8


def choose(data: Path) -> list[Frame]:
    """Four frames with few cells."""
    if (data / "labels").is_dir():
        frames = open_folder(data).labelled
        few = [f for f in frames if 10 <= len(f.cells) <= 30 and max(f.height, f.width) <= 300]
        return sorted(few, key=lambda f: (-rle.areas([c.mask for c in f.cells]).min(), f.id))[:4]
    frames = [f for f in competition.labelled(data) if f.category == "cort"]
    return sorted(frames, key=lambda f: (len(f.cells), f.id))[:4]


def config(frames: list[Frame], out: Path, iterations: int, scale: float) -> train.TrainConfig:
    """The demo's recipe with nothing random but the order of the frames and the proposals."""
    listed = str(write_frames(out / "frames.npz", frames))
    pixels = np.concatenate([read_image(f.path).ravel() for f in frames])
    grey = {"pixel_mean": float(pixels.mean()), "pixel_std": float(pixels.std())}
    return train.TrainConfig(
        out=str(out),
        train=listed,
        val=listed,
        categories=(frames[0].category,),
        model=ModelConfig("tiny", num_classes=1, options=grey),
        # Whole frames: GroupNorm sees in training what it sees in the evaluation.
        augment=AugmentConfig(scale=(scale, scale), cell_centred=0.0, flip=False, rot90=False),
        schedule=train.ScheduleConfig("cosine", max_lr=1e-3, min_lr=1e-6, warmup_iters=20),
        optim=train.OptimConfig("adamw", clip_norm=5.0),
        ema_decay=0.98,
        predict=PredictConfig(scales=(scale,)),
        max_iter=iterations,
        images_per_batch=1,
        eval_every=max(iterations // 8, 1),
        workers=0,
    )


def main() -> int:
    """Train, print the curve, and say whether the bar is met."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--out", type=Path, default=Path("outputs/overfit"))
    options.add_argument("--iterations", type=int, default=240)
    options.add_argument("--scale", type=float, default=1.5)
    given = options.parse_args()
    frames = choose(given.data)
    print(f"{len(frames)} frames, {sum(len(f.cells) for f in frames)} cells")
    result = train.run(config(frames, given.out, given.iterations, given.scale))
    curve = train.curves(given.out)
    print(
        curve[curve["map"].notna()][["iteration", "total_loss", "map", "eval_seconds"]].to_string(index=False)
    )
    seconds = curve["seconds"].sum() + curve["eval_seconds"].sum()
    print(f"best training mAP {result.map:.3f} (bar {BAR}), {seconds:.0f} s")
    return 0 if result.map > BAR else 1


if __name__ == "__main__":
    sys.exit(main())
