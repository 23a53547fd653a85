"""What each step after training is worth: plain, + scales, + orientations, + tuned, + expected gain.

python experiments/ablation.py RUN --data DIR [--folds 0 1 2 3 4] [--stage 05_retrain]
    [--by-type astro=1.0,0.75 cort=2.0,1.5] [--submit "+ scales by type"]

RUN is the folder of a run that trained every fold (``fold: -1``). Each image is predicted by the model of
the fold that held it out, of several stages by their models of that fold together, and none is judged with
limits that were tuned on it. Prints the table with 90 % bootstrap intervals over images and writes
RUN/ablation.json. What is predicted stays in RUN/ablation/ and is not predicted again.

With ``--submit`` the frames are seen in that one way only. The best post-processing is tuned on all held-out
frames and applied to the test images, which the models of all folds predict together. Writes submission.csv,
post.yaml and the rows of the table, judged.json, to RUN/STAGE, or RUN/STAGE+STAGE.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kitlib import config as configs
from kitlib import files, predict, records
from kitlib.data import competition, folds
from kitlib.post import thresholds
from kitlib.post.config import SCORE_KINDS
from kitlib.post.tuning import cross_validation
from kitlib.predict import PredictConfig, PredictJob
from kitlib.records import Frame
from kitlib.submission import writer

LEVELS = (0.4, 0.45, 0.55, 0.6)
FULLEST = "+ orientations"


def ways(
    scale: float, further: float, by_type: dict[str, tuple[float, ...]] | None = None
) -> dict[str, PredictConfig]:
    """How frames are looked at, from the cheapest on; ``scale`` is that of training."""
    found = {"plain": PredictConfig(scales=(scale,)), "+ scales": PredictConfig(scales=(scale, further))}
    if by_type:
        found["+ scales by type"] = PredictConfig(scales=(scale, further), scales_by_type=by_type)
    fullest = list(found.values())[-1]
    return {**found, FULLEST: replace(fullest, tta=("none", "flip_h"), candidate_mask_thresholds=LEVELS)}


def scales_of(text: str) -> tuple[str, tuple[float, ...]]:
    """A type and its scales, of "astro=1.0,0.75"."""
    name, _, scales = text.partition("=")
    return name, tuple(map(float, scales.split(",")))


def weights(run: Path, stages: Sequence[str], fold: int) -> tuple[str, ...]:
    """The models of one fold, one of each stage."""
    return tuple(str(run / stage / f"fold_{fold}" / "weights_best.pth") for stage in stages)


def predicted(
    models: Sequence[str], frames: Sequence[Frame], folder: Path, config: PredictConfig
) -> dict[float, list[Frame]]:
    """The frames as the models predict them, at each mask threshold; what a folder holds of the same job is
    not predicted again."""
    listed = records.write_frames(files.make_folder(folder) / "frames.npz", frames)
    out, done = folder / "predictions.csv", folder / "job.yaml"
    job = PredictJob(tuple(models), str(listed), str(out), config)
    mask_thresholds = (config.mask_threshold["default"], *config.candidate_mask_thresholds)
    paths = {threshold: folder / f"predicted@{threshold:.2f}.npz" for threshold in mask_thresholds}
    if not done.exists() or configs.load(PredictJob, done) != job:
        found = predict.run(job)
        for threshold, path in paths.items():
            records.write_frames(path, found.by_mask_threshold.get(threshold, found.frames))
        configs.save(job, done)
    return {threshold: records.read_frames(path) for threshold, path in paths.items()}


def out_of_fold(
    run: Path, stages: Sequence[str], name: str, config: PredictConfig, truth: dict[int, list[Frame]]
) -> dict[float, list[Frame]]:
    """All held-out frames as predicted by the models that did not see them, at each mask threshold."""
    tables: dict[float, list[Frame]] = {}
    for fold, frames in truth.items():
        folder = run / "ablation" / "+".join(stages) / name.strip("+ ") / f"fold_{fold}"
        for threshold, found in predicted(weights(run, stages, fold), frames, folder, config).items():
            tables.setdefault(threshold, []).extend(found)
    return tables


def show(rows: Iterable[cross_validation.Row]) -> None:
    """Print the table."""
    for row in rows:
        types = "  ".join(f"{k} {v:.3f}" for k, v in row.by_category.items())
        print(f"{row.name:36} {row.mean:.3f}  ({row.low:.3f} to {row.high:.3f})  {types}")


def options() -> argparse.ArgumentParser:
    """What is judged, and how its frames are looked at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stage", nargs="+", default=["03_train"])
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--further", type=float, default=1.5)
    parser.add_argument("--by-type", type=scales_of, nargs="+", default=[])
    parser.add_argument("--submit", metavar="WAY")
    parser.add_argument("--kinds", nargs="+", choices=SCORE_KINDS, default=["box", "product"])
    return parser


def judge(given: argparse.Namespace, truth: dict[int, list[Frame]], judged: list[Frame]) -> None:
    """Cross-validate every way to look at the frames; write the table."""
    rows = []
    for name, config in ways(given.scale, given.further, dict(given.by_type)).items():
        found = out_of_fold(given.run, given.stage, name, config, truth)
        kinds = SCORE_KINDS if name == FULLEST else ("box",)
        result = cross_validation.cross_validate(judged, found, kinds=kinds)
        rows.append(replace(result.rows[0], name=name))
    rows += [replace(row, name=f"+ {row.name}") for row in result.rows[1:]]
    show(rows)
    table = {"images": len(judged), "rows": [asdict(row) for row in rows]}
    files.write_json(given.run / "ablation.json", table)


def submit(given: argparse.Namespace, truth: dict[int, list[Frame]], judged: list[Frame]) -> None:
    """Tune on the held-out frames, predict the test images, write the submission."""
    config = ways(given.scale, given.further, dict(given.by_type))[given.submit]
    folder = files.make_folder(given.run / "+".join(given.stage))
    found = out_of_fold(given.run, given.stage, given.submit, config, truth)
    result = cross_validation.cross_validate(judged, found, kinds=given.kinds)
    show(result.rows)
    files.write_json(folder / "judged.json", [asdict(row) for row in result.rows])
    configs.save(result.tuned, folder / "post.yaml")

    test, post = competition.test(given.data), result.tuned.post
    models = [path for fold in given.folds for path in weights(given.run, given.stage, fold)]
    config = replace(config, candidate_mask_thresholds=(), mask_threshold=post.mask_threshold)
    (instances,) = predicted(models, test, folder / "test", config).values()
    final = [thresholds.apply(frame, post) for frame in instances]
    path = writer.write(folder / "submission.csv", final, test)
    print(f"{path}: {result.best.name}, {result.best.mean:.3f} expected")
    for frame in final:
        print(f"{frame.id}  {frame.category}  {len(frame.cells)} cells")


def main() -> None:
    """Judge every way, or submit one."""
    parser = options()
    given = parser.parse_args()
    names = list(ways(given.scale, given.further, dict(given.by_type)))
    if given.submit not in (None, *names):
        parser.error(f"--submit is none of {', '.join(names)}")
    frames = competition.labelled(given.data)
    truth = {fold: folds.split(frames, fold)[1] for fold in given.folds}
    judged = [frame for part in truth.values() for frame in part]
    (submit if given.submit else judge)(given, truth, judged)


if __name__ == "__main__":
    main()
