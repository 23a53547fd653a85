"""Prediction over many frames in a child process for each GPU, resumable."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitlib import config, files, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.predict.progress import NAME, Progress, part
from kitlib.records import Frame
from kitlib.runtime import launch
from kitlib.runtime.progress import Bar, Row

RESTARTS = 5  # of a child that died while it predicted
GRACE_SECONDS = 60.0  # after ``until``, for a frame that takes longer than its like


@dataclass(frozen=True)
class Predicted:
    """What a job leaves.

    Attributes:
        path: its predictions.csv.
        levels: the table of each mask threshold of ``PredictConfig.levels``; without any, ``path`` alone,
            under the default threshold.
        skipped: why an image was left out, by id; the tables hold such an image without cells.
        seconds: how long each image took, by id.
        reduced: what there was no time or memory for, by id; images that had all are not named.
    """

    path: Path
    levels: dict[float, Path]
    skipped: dict[str, str]
    seconds: dict[str, float]
    reduced: dict[str, str]

    def frames(self) -> list[Frame]:
        """The instances of every frame."""
        return tables.read_cells(self.path)

    def by_level(self) -> dict[float, list[Frame]]:
        """The instances at each of ``levels``, for the tuner."""
        return {level: tables.read_cells(path) for level, path in self.levels.items()}


def run(job: PredictJob, gpus: int = 0) -> Predicted:
    """Predict all frames of a job and write ``job.out``, its predictions.csv, with a progress bar.

    The tables of ``job.config.levels`` go beside it, as predictions@0.40.csv. An image that cannot be read or
    predicted, be it that it takes the process along, is told beside the bar and left out.

    Each frame is kept as soon as it is done, in a folder beside ``job.out`` which goes when all are done: an
    interrupted run with the same settings, frames and weights goes on where it stopped.

    Raises:
        KitError: a missing or damaged file, whatever stopped the child before it predicted or again and
            again (with ``job.until`` set what is left is then skipped), or not one image could be predicted.
    """
    frames = records.read_frames(job.frames)
    folder = _folder(job)
    for stale in set(folder.parent.glob(f"{folder.stem}.*")) - {folder}:
        shutil.rmtree(stale)
    config.save(job, files.make_folder(folder) / "job.yaml")
    progress = Progress(folder)
    progress.forget()
    _predict(job, frames, progress, gpus)
    skipped = _skipped(progress, frames)
    if frames and len(skipped) == len(frames):
        raise KitError(f"not one image could be predicted; {next(iter(skipped.values()))}")
    paths = [Path(job.out), *(_level_path(job.out, level) for level in job.config.levels)]
    found = _collect(folder, frames, skipped, len(paths))
    for path, table in zip(paths, zip(*found, strict=True) if found else [()] * len(paths), strict=True):
        tables.write_predictions(path, table)
    seconds, without = progress.told("seconds"), progress.told("without")
    shutil.rmtree(folder)
    levels = dict(zip(job.config.levels, paths[1:], strict=True))
    return Predicted(
        paths[0],
        levels or {job.config.mask_threshold["default"]: paths[0]},
        skipped,
        seconds,
        {name: what for name, what in without.items() if what},
    )


def _predict(job: PredictJob, frames: Sequence[Frame], progress: Progress, gpus: int) -> None:
    """Have the frames predicted by a child, by another one where that dies of a frame."""
    with Bar(len(frames), "predict", key="frames", shown=()) as bar:

        def show(row: Row) -> None:
            if "begun" not in row:
                bar({**row, "frames": len(frames) - len(progress.unfinished(frames))})

        show({})
        for attempt in range(RESTARTS + 1):
            if not progress.left(frames):
                return
            died = progress.died().total()
            progress.assign(frames)
            try:
                launch.launch(
                    "kitlib.predict",
                    [str(progress.folder / "job.yaml")],
                    progress.folder,
                    gpus=gpus,
                    progress=NAME,
                    on_row=show,
                    until=None if job.until is None else job.until + GRACE_SECONDS,
                )
                return
            except KitError as error:
                if not progress.left(frames):  # what is not done has had its chances
                    show({"note": str(error)})
                    return
                deadline_passed = job.until is not None and time.monotonic() > job.until
                frame_crashed_worker = isinstance(error, launch.Died) and progress.died().total() > died
                retry = frame_crashed_worker and not deadline_passed and attempt < RESTARTS
                any_frame_done = len(progress.unfinished(frames)) < len(frames)
                if not retry and not (job.until is not None and any_frame_done):
                    raise
                show({"note": f"{error}; going on with the other images"})
                if not retry:
                    return


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


def _skipped(progress: Progress, frames: Sequence[Frame]) -> dict[str, str]:
    """Why the frames that are not done were left out, by id, in their order."""
    told = progress.told("skipped")
    return {
        frames[i].id: told.get(frames[i].id, "its process died, or was stopped")
        for i in progress.unfinished(frames)
    }


def _collect(
    folder: Path, frames: Sequence[Frame], skipped: dict[str, str], count: int
) -> list[Sequence[Frame]]:
    """Each frame ``count`` times: as it was predicted at each level, without cells if it was left out."""
    return [
        [replace(frame, cells=())] * count if frame.id in skipped else records.read_frames(part(folder, i))
        for i, frame in enumerate(frames)
    ]
