"""Prediction over many frames in a child process for each GPU, resumable."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from kitlib import config, files, launch, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.records import Frame

PROGRESS = "progress.jsonl"


def run(job: PredictJob, gpus: int = 0) -> Path:
    """Predict all frames of a job and write ``job.out``, its predictions.csv, with a progress bar.

    Each frame is kept as soon as it is done, in a folder beside ``job.out`` which goes when all are done: an
    interrupted run with the same settings, frames and weights goes on where it stopped.

    Raises:
        KitError: a missing or damaged file, or whatever stopped the child.
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
                on_row=lambda row: bar({"frames": next(count)}),
            )
    tables.write_predictions(job.out, _collect(folder, frames))
    shutil.rmtree(folder)
    return Path(job.out)


def part(folder: Path, index: int) -> Path:
    """The file that holds the predictions of one frame until all are done."""
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


def _collect(folder: Path, frames: Sequence[Frame]) -> list[Frame]:
    missing = unfinished(folder, frames)
    if missing:
        raise KitError(
            f"image {frames[missing[0]].id} was not predicted; see {folder / 'log.txt'} and run again"
        )
    return [frame for i in range(len(frames)) for frame in records.read_frames(part(folder, i))]
