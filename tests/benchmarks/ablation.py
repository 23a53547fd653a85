"""What each step after training is worth: plain, + scales, + turns, + tuned, + expected gain.

python tests/benchmarks/ablation.py RUN --data DIR [--folds 0 1 2 3 4] [--stage 05_retrain]
    [--by-type astro=1.0,0.75 cort=2.0,1.5]

RUN is the folder of a run that trained every fold (``fold: -1``). Each image is predicted by the model of
the fold that held it out, of several stages by their models of that fold together, and none is judged with
limits that were tuned on it. Prints the table with 90 % bootstrap intervals over images and writes
RUN/ablation.json. What is predicted stays in RUN/ablation/ and is not predicted again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kitlib import files, predict, records
from kitlib.data import competition, folds, tables
from kitlib.post.tuning import cross_validation
from kitlib.predict import PredictConfig, PredictJob
from kitlib.records import Frame

LEVELS = (0.4, 0.45, 0.55, 0.6)


def ways(
    scale: float, further: float, by_type: dict[str, tuple[float, ...]] | None = None
) -> dict[str, PredictConfig]:
    """How frames are looked at, from the cheapest on; ``scale`` is that of training."""
    found = {"plain": PredictConfig(scales=(scale,)), "+ scales": PredictConfig(scales=(scale, further))}
    if by_type:
        found["+ scales by type"] = PredictConfig(scales=(scale, further), scales_by_type=by_type)
    fullest = list(found.values())[-1]
    return {**found, "+ turns": replace(fullest, tta=("none", "flip_h"), candidate_mask_thresholds=LEVELS)}


def scales_of(text: str) -> tuple[str, tuple[float, ...]]:
    """A type and its scales, of "astro=1.0,0.75"."""
    name, _, scales = text.partition("=")
    return name, tuple(map(float, scales.split(",")))


def held_out(data: Path, chosen: Sequence[int]) -> tuple[dict[int, list[Frame]], list[Frame]]:
    """The images that each of the folds holds out, and all of them in the same order."""
    frames = competition.labelled(data)
    truth = {fold: folds.split(frames, fold)[1] for fold in chosen}
    return truth, [frame for part in truth.values() for frame in part]


def weights(run: Path, stages: Sequence[str], fold: int) -> tuple[str, ...]:
    """The models of one fold, one of each stage."""
    return tuple(str(run / stage / f"fold_{fold}" / "weights_best.pth") for stage in stages)


def out_of_fold(
    run: Path, stages: Sequence[str], name: str, config: PredictConfig, truth: dict[int, list[Frame]]
) -> dict[float, list[Frame]]:
    """All held-out frames as predicted by the models that did not see them, at each mask threshold."""
    levels: dict[float, list[Frame]] = {}
    for fold, frames in truth.items():
        folder = files.make_folder(run / "ablation" / "+".join(stages) / name.strip("+ ") / f"fold_{fold}")
        out = folder / "predictions.csv"
        if not out.exists():
            listed = str(records.write_frames(folder / "frames.npz", frames))
            predict.run(PredictJob(weights(run, stages, fold), listed, str(out), config))
        found = {0.5: out} | {
            level: folder / f"predictions@{level:.2f}.csv" for level in config.candidate_mask_thresholds
        }
        for level, path in found.items():
            levels.setdefault(level, []).extend(tables.read_cells(path))
    return levels


def show(rows: Iterable[cross_validation.Row]) -> None:
    """Print the table."""
    for row in rows:
        types = "  ".join(f"{k} {v:.3f}" for k, v in row.by_category.items())
        print(f"{row.name:36} {row.mean:.3f}  ({row.low:.3f} to {row.high:.3f})  {types}")


def add_options(options: argparse.ArgumentParser) -> None:
    """Those that say what is judged and how its frames are looked at."""
    options.add_argument("run", type=Path)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--stage", nargs="+", default=["03_train"])
    options.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--scale", type=float, default=2.0)
    options.add_argument("--further", type=float, default=1.5)
    options.add_argument("--by-type", type=scales_of, nargs="+", default=[])


def main() -> None:
    """Predict, cross-validate, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(options)
    given = options.parse_args()
    truth, judged = held_out(given.data, given.folds)
    rows = []
    for name, config in ways(given.scale, given.further, dict(given.by_type)).items():
        found = out_of_fold(given.run, given.stage, name, config, truth)
        kinds = cross_validation.KINDS if name == "+ turns" else ("box",)
        result = cross_validation.cross_validate(judged, found, kinds=kinds)
        rows.append(replace(result.rows[0], name=name))
    rows += [replace(row, name=f"+ {row.name}") for row in result.rows[1:]]
    show(rows)
    table = {"images": len(judged), "rows": [asdict(row) for row in rows]}
    files.write_json(given.run / "ablation.json", table)


if __name__ == "__main__":
    main()
