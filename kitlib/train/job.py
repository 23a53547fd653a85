"""A training as the notebooks start it: in child processes, with a progress bar, resuming by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitlib import config as configs
from kitlib import files
from kitlib.runtime import launch
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
    torchrun: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Train, going on from ``config.out``'s checkpoint where the configuration and the data are the same.

    Args:
        config: the whole training.
        gpus: one process each; 0 trains on the CPU, -1 on as many as there are and share a batch evenly.
        processes: as many processes on the CPU, for trials; see ``kitlib.runtime.launch.launch``.
        torchrun: options for several hosts, as there.
        force: throw away what an earlier training left in the folder.

    Raises:
        KitError: what stopped the training, and what to do.
    """
    out = files.make_folder(config.out)
    if force:
        clear(out)
    present = gpu_count(gpus, {"amp": config.amp})
    gpus = config.most_processes(present) if gpus < 0 else present
    if gpus < present:
        print(f"{gpus} of {present} GPUs: they share {config.images_per_batch} images a batch")
    with Bar(config.max_iter, out.name) as bar:
        return start(config, gpus, bar, processes=processes, torchrun=torchrun)


def start(
    config: TrainConfig,
    gpus: int,
    on_row: Callable[[Row], None],
    *,
    processes: int | None = None,
    torchrun: Sequence[str] | None = (),
    place: launch.Place | None = None,
) -> Result:
    """``run`` without a bar of its own.

    Args:
        config: the whole training.
        gpus: one process each; 0 trains on the CPU.
        on_row: called with each row of metrics.
        processes, torchrun, place: as for ``kitlib.runtime.launch.launch``.
    """
    out = files.make_folder(config.out)
    launch.launch(
        "kitlib.train",
        [str(configs.save(config, out / JOB))],
        out,
        gpus=gpus,
        processes=processes,
        progress=events.METRICS,
        on_row=on_row,
        torchrun=torchrun,
        place=place,
    )
    return _result(out)


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
