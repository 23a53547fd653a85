"""Prediction over many frames in a child process for each GPU, resumable."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitlib import config, files, launch, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.records import Frame

PROGRESS = "progress.jsonl"


@dataclass(frozen=True)
class Predicted:
    """What a job leaves.

    Attributes:
        path: its predictions.csv.
        levels: the table of each mask threshold of ``PredictConfig.levels``; without any, ``path`` alone,
            under the default threshold.
        skipped: why an image was left out, by id; the tables hold such an image without cells.
    """

    path: Path
    levels: dict[float, Path]
    skipped: dict[str, str]

    def frames(self) -> list[Frame]:
        """The instances of every frame."""
        return tables.read_cells(self.path)

    def by_level(self) -> dict[float, list[Frame]]:
        """The instances at each of ``levels``, for the tuner."""
        return {level: tables.read_cells(path) for level, path in self.levels.items()}


def run(job: PredictJob, gpus: int = 0) -> Predicted:
    """Predict all frames of a job and write ``job.out``, its predictions.csv, with a progress bar.

    The tables of ``job.config.levels`` go beside it, as predictions@0.40.csv. An image that cannot be read or
    predicted is told beside the bar and left out.

    Each frame is kept as soon as it is done, in a folder beside ``job.out`` which goes when all are done: an
    interrupted run with the same settings, frames and weights goes on where it stopped.

    Raises:
        KitError: a missing or damaged file, whatever stopped the child, or not one image could be predicted.
    """
    frames = records.read_frames(job.frames)
    folder = _folder(job)
    for stale in set(folder.parent.glob(f"{folder.stem}.*")) - {folder}:
        shutil.rmtree(stale)
    config.save(job, files.make_folder(folder) / "job.yaml")
    done = len(frames) - len(unfinished(folder, frames))
    count = itertools.count(done + 1)
    with launch.Bar(len(frames), "predict", key="frames", shown=()) as bar:
        bar({"frames": done})
        if done < len(frames):
            launch.launch(
                "kitlib.predict",
                [str(folder / "job.yaml")],
                folder,
                gpus=gpus,
                progress=PROGRESS,
                on_row=lambda row: bar({**row, "frames": next(count)}),
            )
    skipped = _skipped(folder, frames)
    if frames and len(skipped) == len(frames):
        raise KitError(f"not one image could be predicted; {next(iter(skipped.values()))}")
    paths = [Path(job.out), *(_level_path(job.out, level) for level in job.config.levels)]
    found = _collect(folder, frames, skipped, len(paths))
    for path, table in zip(paths, zip(*found, strict=True) if found else [()] * len(paths), strict=True):
        tables.write_predictions(path, table)
    shutil.rmtree(folder)
    levels = dict(zip(job.config.levels, paths[1:], strict=True))
    return Predicted(paths[0], levels or {job.config.mask_threshold["default"]: paths[0]}, skipped)


def part(folder: Path, index: int) -> Path:
    """The file that holds the predictions of one frame, at each level, until all are done."""
    return folder / f"{index:06d}.jsonl"


def unfinished(folder: Path, frames: Sequence[Frame]) -> list[int]:
    """The numbers of the frames that are still to be predicted."""
    return [i for i in range(len(frames)) if not part(folder, i).exists()]


def _folder(job: PredictJob) -> Path:
    """Where the parts of this very job lie: other weights, frames or settings have another folder."""
    for path in job.weights:
        if not Path(path).is_file():
            raise KitError(f"{path} does not exist; train first, or name another checkpoint")
    key = files.fingerprint(*map(Path, job.weights), Path(job.frames), config.dumps(job.config))
    out = Path(job.out)
    return out.parent / f".{out.stem}-parts.{key}"


def _level_path(out: str, level: float) -> Path:
    return Path(out).with_stem(f"{Path(out).stem}@{level:.2f}")


def _skipped(folder: Path, frames: Sequence[Frame]) -> dict[str, str]:
    """Why the frames that are not done were left out, by id, in their order."""
    progress = folder / PROGRESS
    rows = map(json.loads, progress.read_text("utf-8").splitlines()) if progress.exists() else ()
    told = {row["id"]: row["skipped"] for row in rows if "skipped" in row}
    return {frames[i].id: told[frames[i].id] for i in unfinished(folder, frames) if frames[i].id in told}


def _collect(
    folder: Path, frames: Sequence[Frame], skipped: dict[str, str], count: int
) -> list[Sequence[Frame]]:
    """Each frame ``count`` times: as it was predicted at each level, without cells if it was left out."""
    missing = [frames[i].id for i in unfinished(folder, frames) if frames[i].id not in skipped]
    if missing:
        raise KitError(f"image {missing[0]} was not predicted; see {folder / 'log.txt'} and run again")
    return [
        [replace(frame, cells=())] * count if frame.id in skipped else records.read_frames(part(folder, i))
        for i, frame in enumerate(frames)
    ]
