"""A short training on real cells, its speed and its score on the images left out; ``gpu_check.sh`` calls it.

python experiments/gpu_check.py DATA OUT.json [--preset r50] [--iterations 300] [--cpu]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from kitlib import files, records, train
from kitlib.data import dataset, folds
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.predict.config import PredictConfig
from kitlib.runtime import machine
from kitlib.train.config import OptimConfig, TrainConfig
from kitlib.train.schedule import ScheduleConfig

BATCH = 4
# The first iterations set up the device.
WARM_UP = 20


def config(folder: Path, data: Path, preset: str, iterations: int, on_cpu: bool) -> TrainConfig:
    """From random weights, so with GroupNorm and without frozen stages; bfloat16 on a GPU."""
    found = dataset.open_folder(data)
    training, held_out = folds.split(found.labelled, 0, 5, seed=0)
    side = 128 if on_cpu else 512
    return TrainConfig(
        out=str(folder / "training"),
        train=str(records.write_frames(folder / "train.npz", training)),
        val="" if on_cpu else str(records.write_frames(folder / "val.npz", held_out)),
        categories=found.categories,
        model=ModelConfig(preset, len(found.categories), options={"norm": "GN", "freeze_at": 0}),
        augment=AugmentConfig(scale=(1.2, 2.2), crop=(side, side), cell_centred=0.85),
        optim=OptimConfig("adamw", weight_decay=0.01, clip_norm=5.0),
        schedule=ScheduleConfig("cosine", max_lr=5e-4, min_lr=1e-5, warmup_iters=30),
        predict=PredictConfig(scales=(1.5,)),
        max_iter=iterations,
        images_per_batch=BATCH,
        amp="off" if on_cpu else "bf16",
        workers=0 if on_cpu else 4,
    )


def main() -> None:
    """Train, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="r50")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        wanted = config(Path(folder), given.data, given.preset, given.iterations, given.cpu)
        result = train.run(wanted, 0 if given.cpu else 1)
        seconds = time.monotonic() - start
        rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    steps = [row for row in rows if "seconds" in row]
    warm = steps[WARM_UP:] or steps
    found = {
        "machine": machine.describe(),
        "preset": given.preset,
        "iterations": result.iteration,
        "seconds": round(seconds, 1),
        "images_per_s": round(BATCH / statistics.median(row["seconds"] for row in warm), 2),
        "waits_for_images": round(
            sum(row["data_seconds"] for row in warm) / sum(row["seconds"] for row in warm), 3
        ),
        "gpu_gib": steps[-1].get("gpu_gib"),
        "first_loss": steps[0]["total_loss"],
        "last_loss": statistics.median(row["total_loss"] for row in steps[-20:]),
        "map": result.map,
    }
    files.write_json(given.out, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
