"""A training as the notebooks start it: in child processes, with a progress bar, resuming by itself."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kitlib import config as configurations
from kitlib import files
from kitlib.runtime import engine
from kitlib.runtime.gpus import gpu_count
from kitlib.runtime.progress import Bar, Row
from kitlib.train import events
from kitlib.train.config import TrainConfig

JOB = "job.yaml"
RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """What a finished training left.

    Attributes:
        best: weights of the best evaluation; the last weights where there was none.
        last: weights after the last iteration.
        iteration: how many iterations there were; fewer than asked for after an early stop.
        map: the best evaluation's score, None without one.
        best_iteration: when that was.
        metrics: rows of everything measured, JSON lines.
        curves: the same as a table, one row an iteration.
        log: what the processes printed.
    """

    best: Path
    last: Path
    iteration: int
    map: float | None
    best_iteration: int | None
    metrics: Path
    curves: Path
    log: Path


def run(
    config: TrainConfig,
    gpus: int = 0,
    *,
    processes: int | None = None,
    force: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> Result:
    """Train, going on from ``config.out``'s checkpoint where the configuration and the data are the same.

    Args:
        config: the whole training.
        gpus: one process each; 0 trains on the CPU, -1 on as many as there are and share a batch evenly.
        processes: as many processes on the CPU, for trials; see ``kitlib.runtime.launch.launch``.
        force: throw away what an earlier training left in the folder.
        on_row: is called with each row of its metrics; what it raises stops the training.

    Raises:
        KitError: what stopped the training, and what to do.
    """
    return run_all([config], gpus, processes=processes, force=force, on_row=on_row)[0]


def run_all(
    configs: Sequence[TrainConfig],
    gpus: int = 0,
    *,
    at_once: int = 1,
    processes: int | None = None,
    force: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> list[Result]:
    """Train several times, as ``run`` does: here as many side by side as asked for, on a cluster as many as
    it has room for.

    Args:
        configs: trainings with folders of their own, by whose names notes, progress and errors call them,
            and the same number of images a batch.
        gpus: as for ``run``; trainings side by side get an equal share of them each.
        at_once: how many run side by side here, and no more than there are GPUs; without GPUs each gets a
            share of the cores.
        processes: likewise.
        force: likewise.
        on_row: is called with each row of the first training.

    Raises:
        KitError: what stopped one of the trainings, which one, and what to do; the others are stopped, too.
    """
    folders = [files.make_folder(config.out) for config in configs]
    if force:
        for out in folders:
            clear(out)
    first = configs[0]
    present = gpu_count(gpus, {"amp": first.amp})
    at_once = engine.possible_at_once(at_once, len(configs), present)
    gpus = first.most_processes(present // at_once) if gpus < 0 else present // at_once
    if gpus * at_once < present:
        print(f"{gpus * at_once} of {present} GPUs: {gpus} share {first.images_per_batch} images a batch")
    names = _names(folders)
    with Bar(sum(config.max_iter for config in configs), ", ".join(names.values())) as bar:
        reached: dict[Path, int] = {}
        shown = threading.Lock()

        def show(out: Path, row: Row) -> None:
            with shown:
                reached[out] = row.get(bar.key, reached.get(out, 0))
                bar({**row, bar.key: sum(reached.values())}, names[out] if len(folders) > 1 else "")
            if on_row is not None and out == folders[0]:
                on_row(row)

        engine.run(
            [
                engine.Job(
                    "kitlib.train",
                    (str(configurations.save(config, out / JOB)),),
                    out,
                    events.METRICS,
                    partial(show, out),
                    name=names[out] if len(folders) > 1 else "",
                )
                for config, out in zip(configs, folders, strict=True)
            ],
            gpus,
            processes,
            at_once,
        )
    return [_result(out) for out in folders]


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """The end of each folder's path in which it differs from the others: fold_0/finetune."""
    paths = [out.resolve() for out in folders]
    common = os.path.commonpath([path.parent for path in paths])
    return {out: path.relative_to(common).as_posix() for out, path in zip(folders, paths, strict=True)}


def _result(out: Path | str) -> Result:
    """The result of the finished training in a folder.

    Raises:
        KitError: it is not finished.
    """
    out = Path(out)
    reached = files.read_json(out / RESULT)
    last, best = out / "weights_last.pth", out / "weights_best.pth"
    return Result(
        best=best if reached["map"] is not None else last,
        last=last,
        metrics=out / events.METRICS,
        curves=out / events.CURVES,
        log=out / "log.txt",
        **reached,
    )


def clear(out: Path) -> None:
    """Remove what a training has written, and nothing else that may lie in the folder."""
    # Imported here, because it brings torch.
    from kitlib.train import resume

    for folder in (resume.last(out).parent, out / "tensorboard"):
        shutil.rmtree(folder, ignore_errors=True)
    names = (events.METRICS, events.CURVES, RESULT, "config.yaml", "weights_best.pth", "weights_last.pth")
    for name in names:
        (out / name).unlink(missing_ok=True)
