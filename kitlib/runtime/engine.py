"""Where jobs run: in child processes of this host, or on the nodes of a Ray cluster.

``--engine ray`` says so to the notebooks' kernels by an environment variable; the job is the same either way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from kitlib.errors import KitError
from kitlib.runtime import cluster, launch, side_by_side
from kitlib.runtime.progress import Row

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Job:
    """Work for ``python -m module args``, in one process or several.

    Attributes:
        module: as ``"kitlib.train"``.
        args: the module's arguments.
        out: the job's folder, for its progress and what its processes print.
        progress: a JSON-lines file in ``out``.
        on_row: called with each row that is appended to ``progress``.
        is_shared_out: its processes do not talk to each other: each takes its share of the work, see
            ``launch.share``, and on a cluster every node has processes of their own launch.
        until: the time (``time.monotonic()``) at which it is stopped.
        name: what its errors begin with, as "fold_0"; "" for a job that runs alone.
    """

    module: str
    args: tuple[str, ...]
    out: Path
    progress: str
    on_row: Callable[[Row], None]
    is_shared_out: bool = False
    until: float | None = None
    name: str = ""

    def named(self, error: KitError) -> KitError:
        """An error of the job that says which job it is."""
        return type(error)(f"{self.name}: {error}") if self.name else error


def choose(engine: Engine, address: str = "") -> None:
    """Let jobs of this process and of the processes that it starts run on an engine.

    Args:
        engine: what to choose.
        address: of the Ray cluster, HOST:PORT; "": RAY_ADDRESS, or the one that runs on this host.

    Raises:
        KitError: Ray is not installed, or no cluster answers.
    """
    os.environ.pop(cluster.ENGINE, None)
    if engine == "ray":
        os.environ[cluster.ENGINE] = engine
        if address:
            os.environ[cluster.ADDRESS] = address
        cluster.connect()


def possible_at_once(asked: int, jobs: int, gpus: int) -> int:
    """How many jobs share this host's GPUs side by side: at the most one a GPU.

    Args:
        asked: at least one.
        jobs: how many there are.
        gpus: of this host; without any, jobs share the cores.

    Returns:
        1 on a cluster: each job gets all that it asks for, and Ray runs as many as there is room for.
    """
    return 1 if cluster.is_chosen() else min(asked, jobs, gpus or jobs)


def run(jobs: Sequence[Job], gpus: int = 0, processes: int | None = None, at_once: int = 1) -> None:
    """Run jobs to their ends: here some side by side, on a cluster as many at once as it has room for.

    Args:
        jobs: in the order in which they begin.
        gpus: processes of each job, with one GPU each; 0 for one process on the CPU.
        processes: as many processes on the CPU instead.
        at_once: how many run side by side here, on GPUs or a share of the cores of their own.

    Raises:
        KitError: as ``launch.launch`` and ``cluster.run``; the jobs that still ran are stopped.
        Interrupted: the user interrupted them; none of their processes is left.
    """
    if cluster.is_chosen():
        cluster.run(jobs, gpus, processes)
    elif at_once > 1:
        side_by_side.run([partial(_launch, job, gpus, processes) for job in jobs], at_once)
    else:
        for job in jobs:
            _launch(job, gpus, processes)


def _launch(job: Job, gpus: int, processes: int | None, place: launch.Place | None = None) -> None:
    try:
        launch.launch(
            job.module,
            job.args,
            job.out,
            gpus=gpus,
            processes=processes,
            progress=job.progress,
            on_row=job.on_row,
            # What torchrun's variables say of further hosts is of use to processes that talk, and are alone.
            torchrun=None if job.is_shared_out or place else (),
            until=job.until,
            place=place,
        )
    except KitError as error:
        raise job.named(error) from error
