"""Prediction over many frames in a child process for each GPU, resumable."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitlib import config, files, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.predict.config import PredictJob
from kitlib.predict.progress import NAME, Progress, part_file
from kitlib.records import Frame
from kitlib.runtime import cluster, engine, launch
from kitlib.runtime.progress import Bar, Row

RESTARTS = 5
"""Restarts of a child process that died while it predicted."""
_GRACE_SECONDS = 60.0
"""Time after ``until`` for a frame that takes longer than others."""


@dataclass(frozen=True)
class Predicted:
    """The outcome of a job.

    Attributes:
        path: its predictions.csv.
        frames: every frame with its instances, as the table has them; a frame that was left out has none.
        by_mask_threshold: the frames at each of ``PredictConfig.candidate_mask_thresholds``, for the tuner;
            without any, ``frames`` alone under the default mask threshold.
        skipped: why a frame was left out, by id.
        seconds: how long each frame took, by id.
        reduced: what there was no time or memory for, by id; frames that had all are not named.
        limited: ids of the frames with as many instances as ``PredictConfig.max_cells`` allows, of which some
            may be missing.
        in_true_boxes: the frames with the masks that the model draws in the boxes of their own cells, see
            ``kitlib.predict.true_boxes``; none where the job does not ask for them.
    """

    path: Path
    frames: list[Frame]
    by_mask_threshold: dict[float, list[Frame]]
    skipped: dict[str, str]
    seconds: dict[str, float]
    reduced: dict[str, str]
    limited: frozenset[str]
    in_true_boxes: tuple[Frame, ...] = ()


def run(job: PredictJob, gpus: int = 0) -> Predicted:
    """Predict all frames of a job and write ``job.out``, its predictions.csv, with a progress bar.

    An image that cannot be read or predicted is noted beside the bar and left out, even if the process died
    of it. So is the number of images that reached the limit ``max_cells``.

    The predictions of each frame are stored as soon as it is done, in a folder beside ``job.out`` which is
    removed when all are done: an interrupted run with the same settings, frames and weights goes on where it
    stopped.

    Args:
        job: the models, the frames and how to predict them.
        gpus: processes with one GPU each; 0 for the CPU.

    Raises:
        KitError: a missing or damaged file; whatever stopped the child process before it predicted, or again
            and again (with ``job.until`` set the remaining frames are then skipped); not one image could be
            predicted.
    """
    frames = records.read_frames(job.frames)
    folder = _folder(job)
    for stale in set(folder.parent.glob(f"{folder.stem}.*")) - {folder}:
        shutil.rmtree(stale)
    config.save(job, files.make_folder(folder) / "job.yaml")
    progress = Progress(folder)
    progress.restart()
    _predict(job, frames, progress, gpus)
    skipped = _skipped(progress, frames)
    if frames and len(skipped) == len(frames):
        raise KitError(f"not one image could be predicted; {next(iter(skipped.values()))}")
    candidates = job.config.candidate_mask_thresholds
    count = 1 + len(candidates)
    predicted, *others = _collect(folder, frames, skipped, count + job.in_true_boxes)
    at_candidates, drawn = others[: count - 1], others[count - 1 :]
    tables.write_predictions(job.out, predicted)
    seconds, without, limited = progress.last("seconds"), progress.last("without"), _limited(progress)
    shutil.rmtree(folder)
    return Predicted(
        Path(job.out),
        predicted,
        dict(zip(candidates, at_candidates, strict=True))
        or {job.config.mask_threshold["default"]: predicted},
        skipped,
        seconds,
        {name: what for name, what in without.items() if what},
        limited,
        tuple(*drawn),
    )


def _predict(job: PredictJob, frames: Sequence[Frame], progress: Progress, gpus: int) -> None:
    """Have the frames predicted by a child process, and by another one when it dies of a frame."""
    with Bar(len(frames), "predict", key="frames", shown=()) as bar:

        def show(row: Row) -> None:
            if "begun" not in row:
                bar({**row, "frames": len(frames) - len(progress.unfinished(frames))})

        show({})
        _attempt(job, frames, progress, gpus, show)
        if limited := _limited(progress):
            show({"note": _limit_note(len(limited), job.config.max_cells)})


def _limited(progress: Progress) -> frozenset[str]:
    return frozenset(name for name, limited in progress.last("limited").items() if limited)


def _limit_note(images: int, limit: int) -> str:
    who = f"{images} images have" if images > 1 else "1 image has"
    return f"{who} {limit:,} instances, the most that max_cells allows; raise it where cells are missing"


def _attempt(
    job: PredictJob, frames: Sequence[Frame], progress: Progress, gpus: int, show: Callable[[Row], None]
) -> None:
    """Start child processes until every frame is predicted or given up."""
    for attempt in range(RESTARTS + 1):
        if not progress.remaining(frames):
            return
        deaths = progress.deaths().total()
        progress.assign(frames)
        try:
            engine.run([_shared_out(job, progress.folder, show)], gpus)
            return
        except KitError as error:
            if not progress.remaining(frames):
                show({"note": str(error)})
                return
            deadline_passed = job.until is not None and time.monotonic() > job.until
            frame_crashed_worker = isinstance(error, launch.Died) and progress.deaths().total() > deaths
            may_go_on = frame_crashed_worker or isinstance(error, cluster.NodeLost)
            retry = may_go_on and not deadline_passed and attempt < RESTARTS
            any_frame_done = len(progress.unfinished(frames)) < len(frames)
            if not retry and not (job.until is not None and any_frame_done):
                raise
            show({"note": f"{error}; going on with the other images"})
            if not retry:
                return


def _shared_out(job: PredictJob, folder: Path, show: Callable[[Row], None]) -> engine.Job:
    """The frames that are assigned, for processes each of which takes its share of them."""
    until = None if job.until is None else job.until + _GRACE_SECONDS
    return engine.Job("kitlib.predict", (str(folder / "job.yaml"),), folder, NAME, show, True, until)


def _folder(job: PredictJob) -> Path:
    """The folder of this very job's parts: other weights, frames or settings have another folder."""
    for path in job.weights:
        if not Path(path).is_file():
            raise KitError(f"{path} does not exist; train first, or name another checkpoint")
    key = files.fingerprint(
        *map(Path, job.weights), Path(job.frames), config.dumps(job.config), str(job.in_true_boxes)
    )
    out = Path(job.out)
    return out.parent / f".{out.stem}-parts.{key}"


def _skipped(progress: Progress, frames: Sequence[Frame]) -> dict[str, str]:
    """Why the frames that are not done were left out, by id, in their order."""
    reasons = progress.last("skipped")
    return {
        frames[i].id: reasons.get(frames[i].id, "its process died, or was stopped")
        for i in progress.unfinished(frames)
    }


def _collect(folder: Path, frames: Sequence[Frame], skipped: dict[str, str], count: int) -> list[list[Frame]]:
    """The ``count`` lists of predicted frames: at each mask threshold, then in true boxes where the job asks
    for them. A frame that was left out has no cells."""
    parts = [
        [replace(frame, cells=(), category=None)] * count
        if frame.id in skipped
        else [replace(part, cells=tuple(part.cells)) for part in records.read_frames(part_file(folder, i))]
        for i, frame in enumerate(frames)
    ]
    return [[part[place] for part in parts] for place in range(count)]
