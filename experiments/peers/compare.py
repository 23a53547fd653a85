"""Score what the runners found with the kit's metric, beside the kit's own runs: JSON, a table and a figure.

python experiments/peers/compare.py WORK    # the results of measure.py, then the page
python experiments/peers/compare.py         # docs/peers.md and its figure from the results that are there

The thresholds of every tool are chosen as the kit's are: for a fifth of the validation images on the others,
five times over. A tool's are one of its runner's settings and the lowest score of a cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import page
from numpy.typing import NDArray

from kitlib import config as configs
from kitlib import files, metric, predict, records
from kitlib.data import folds, tables
from kitlib.masks import rle
from kitlib.metric.comparison import compare
from kitlib.metric.matching import pairs, true_positives
from kitlib.post import overlap
from kitlib.records import UNTYPED, Cell, Frame
from kitlib.runtime import machine
from kitlib.train import TrainConfig, events

TOOLS = ("cellpose", "stardist", "torchvision", "detectron2")
SCORES = np.round(np.arange(0.05, 1, 0.05), 2)
PARTS = 5
# Validation images whose prediction by the kit is timed.
TIMED = 5


@dataclass(frozen=True)
class Point:
    """How good a tool is after some training.

    Attributes:
        cpu_minutes: of training, with all preparation of its data.
        steps: of the optimiser.
        score: the competition's metric on the validation images.
        low: of its 90 % interval.
        high: of its 90 % interval.
        by_type: the score of the images of each type.
        coco_ap: COCO's AP before any threshold, the mean over the images' types.
        coco_ap_by_type: the same in the images of each type.
        setting: what was chosen on all validation images, in words.
        seconds_an_image: CPU time of prediction; None where it was not taken.
    """

    cpu_minutes: float
    steps: int
    score: float
    low: float
    high: float
    by_type: dict[str, float]
    coco_ap: float | None
    coco_ap_by_type: dict[str, float]
    setting: str
    seconds_an_image: float | None


# ------------------------------------------------------------------------------------------ other tools


def of_tool(folder: Path, truth: Sequence[Frame]) -> dict[str, Any]:
    """The results of one runner: a point for each of its checkpoints."""
    trained = files.read_json(folder / "training.json")
    points = []
    for name, reached in trained["checkpoints"].items():
        found = files.read_json(folder / f"predictions_{name}.json")
        by_setting = {key: _frames(rows, truth) for key, rows in found["settings"].items()}
        scores, chosen = choose(truth, by_setting)
        setting = f"{chosen[0]}, score {chosen[1]:g}"
        points.append(
            _point(truth, scores, by_setting[chosen[0]], reached, setting, found["seconds_an_image"])
        )
    return _result(truth, trained["versions"], points)


def _frames(rows: Sequence[Mapping[str, Any]], truth: Sequence[Frame]) -> list[Frame]:
    of_image: dict[str, list[Mapping[str, Any]]] = {frame.id: [] for frame in truth}
    for row in rows:
        of_image[row["image_id"]].append(row)
    return [replace(frame, cells=tuple(_cells(of_image[frame.id]))) for frame in truth]


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    codes = [row["segmentation"] for row in rows]
    masks = rle.from_coco_all([rle.RLE(size=c["size"], counts=c["counts"].encode("ascii")) for c in codes])
    return [Cell(mask, UNTYPED, row["score"]) for mask, row in zip(masks, rows, strict=True)]


def choose(
    truth: Sequence[Frame], by_setting: Mapping[str, Sequence[Frame]]
) -> tuple[NDArray[np.float64], tuple[str, float]]:
    """The score of each image with what was chosen on other images, and what all of them together choose.

    Args:
        truth: the validation images.
        by_setting: all instances that each setting finds, in the same order; a cell gives its pixels to
            those with higher scores.

    Returns:
        (N,) scores, and the setting with its lowest score.
    """
    choices = [(setting, score) for setting in by_setting for score in SCORES.tolist()]
    table = np.concatenate([_by_lowest_score(truth, frames) for frames in by_setting.values()])
    part = folds.assign(truth, min(PARTS, len(truth)))
    of_image = np.array([part[frame.id] for frame in truth])
    scores = np.zeros(len(truth))
    for number in np.unique(of_image):
        judged = of_image == number
        scores[judged] = table[table[:, ~judged].mean(axis=1).argmax(), judged]
    return scores, choices[table.mean(axis=1).argmax()]


def _by_lowest_score(truth: Sequence[Frame], frames: Sequence[Frame]) -> NDArray[np.float64]:
    """The metric of each image with each of ``SCORES`` as the lowest of a cell, (S, N)."""
    columns = []
    for frame, found in zip(truth, frames, strict=True):
        cells = overlap.resolve(found.cells, frame.height, frame.width)
        scores = np.array([cell.confidence for cell in cells])
        matches = pairs([cell.mask for cell in frame.cells], [cell.mask for cell in cells])
        tp = np.stack([true_positives(matches.where(scores[matches.predicted] >= low)) for low in SCORES])
        predicted = (scores >= SCORES[:, None]).sum(axis=1, keepdims=True)
        columns.append(metric.precision(tp, np.array(len(frame.cells)), predicted).mean(axis=1))
    return np.stack(columns, axis=1)


def _point(
    truth: Sequence[Frame],
    scores: NDArray[np.float64],
    instances: Sequence[Frame],
    reached: Mapping[str, float],
    setting: str,
    seconds: float | None,
) -> Point:
    low, high = metric.interval(scores.tolist())
    found = compare(truth, instances)
    by_type = {name: quality.coco_ap or 0.0 for name, quality in found.by_type.items()}
    return Point(
        cpu_minutes=reached["cpu_minutes"],
        steps=int(reached["steps"]),
        score=round(float(scores.mean()), 4),
        low=round(low, 4),
        high=round(high, 4),
        by_type=_rounded(metric.means_by_category([frame.category or UNTYPED for frame in truth], scores)),
        coco_ap=round(float(np.mean(list(by_type.values())) if by_type else found.all.coco_ap or 0.0), 4),
        coco_ap_by_type=_rounded(by_type),
        setting=setting,
        seconds_an_image=seconds,
    )


def _result(truth: Sequence[Frame], versions: Mapping[str, str], points: Sequence[Point]) -> dict[str, Any]:
    of_points = [asdict(point) for point in points]
    return {"validation_images": len(truth), "versions": dict(versions), "points": of_points}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in values.items()}


# ------------------------------------------------------------------------------------------ the kit


def of_kit(runs: Sequence[Path], truth: Sequence[Frame]) -> dict[str, Any]:
    """The results of the kit: a point for each run, of its fold 0; the longest one's prediction is timed.

    Args:
        runs: folders of runs, from the shortest training to the longest.
        truth: the validation images.
    """
    points = []
    for run in runs:
        stage = run / "03_train"
        instances, final = (_of_ids(stage / name, truth) for name in ("predictions.csv", "out_of_fold.csv"))
        scores = np.array(list(metric.score(truth, final).by_image.values()))
        seconds = _seconds_an_image(stage, truth) if run == runs[-1] else None
        setting = "chosen by cross-validation in 03_train"
        points.append(_point(truth, scores, instances, spent(run), setting, seconds))
    return _result(truth, machine.describe(), points)


def _of_ids(table: Path, truth: Sequence[Frame]) -> list[Frame]:
    """The frames of a table, without types, as the other tools have none."""
    found = {frame.id: frame.cells for frame in tables.read_cells(table)}
    untyped = {
        name: tuple(replace(cell, category=UNTYPED) for cell in cells) for name, cells in found.items()
    }
    return [replace(frame, cells=untyped.get(frame.id, ())) for frame in truth]


def spent(run: Path) -> dict[str, float]:
    """Minutes and steps of pretraining and of all phases of fold 0: on a core of its own, the wall time of a
    training is its CPU time and that of the process that prepares its images."""
    folders = ("02_pretrain_livecell", "03_train/fold_0")
    logs = [log for folder in folders for log in run.glob(f"{folder}/**/metrics.jsonl")]
    seconds = [row["seconds"] for log in logs for row in events.read(log.parent) if "seconds" in row]
    return {"cpu_minutes": round(sum(seconds) / 60, 2), "steps": len(seconds)}


def _seconds_an_image(stage: Path, truth: Sequence[Frame]) -> float:
    weights = stage / files.read_json(stage / "metrics.json")["weights"][0]
    config = configs.load(TrainConfig, stage / "config.yaml").predict
    folder = stage / "timed"
    frames = records.write_frames(folder / "frames.npz", truth[:TIMED])
    job = predict.PredictJob((str(weights),), str(frames), str(folder / "predictions.csv"), config)
    return round(float(np.mean(list(predict.run(job, 0).seconds.values()))), 3)


# ------------------------------------------------------------------------------------------ all


def results(work: Path) -> Iterator[dict[str, Any]]:
    """The results of each data set and tool that ``measure.py`` has finished."""
    for data in sorted(work.glob("*/data/validation.npz")):
        truth, folder = records.read_frames(data), data.parents[1]
        for tool in TOOLS:
            if (folder / tool / "training.json").is_file():
                yield {"data": folder.name, "tool": tool, **of_tool(folder / tool, truth)}
        runs = [run.parents[1] for run in folder.glob("kitlib-*/03_train/metrics.json")]
        if runs:
            by_length = sorted(runs, key=lambda run: spent(run)["steps"])
            yield {"data": folder.name, "tool": "kitlib", **of_kit(by_length, truth)}


def main() -> None:
    """Score what there is, and bring the page up to date."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path, nargs="?")
    given = options.parse_args()
    for found in results(given.work) if given.work else ():
        files.write_json(page.RESULTS / f"{found['data']}-{found['tool']}.json", found)
        print(found["data"], found["tool"], found["points"][-1])
    page.write()


if __name__ == "__main__":
    main()
