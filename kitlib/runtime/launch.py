"""Heavy work in a ``torchrun`` child, one process a GPU, watched from a notebook or a terminal.

One code path for 0, 1 or N GPUs and for several hosts: ``launch`` starts ``python -m torch.distributed.run``,
follows the rows that the child appends to its progress file, and hands the child's own error sentence back.
The child's ``main`` goes through ``child``. The parent imports no torch.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from kitlib import files
from kitlib.errors import KitError
from kitlib.offline import out_of_memory, reason
from kitlib.runtime import heartbeat, lock, threads

Row = dict[str, Any]
logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_A_LOG = 1 << 16  # bytes that a child should find on the disk
GRACE_SECONDS = 15.0  # between asking the child to stop and killing it
WATCH_SECONDS = 1.0
SHARED_MEMORY = Path("/dev/shm")
NCCL_BYTES = 512 << 20  # of shared memory for a host's GPUs: the least that DeepSpeed's own check asks for
_ERROR_FILE = "KIT_ERROR_FILE"
_GPUS = "KIT_GPUS"
_TORCHRUN = "PET_"  # of the variables that torchrun takes for its options


class Died(KitError):
    """A child ended without a word of its own: it was killed, hung, or met what nobody foresaw."""


def launch(
    module: str,
    args: Sequence[str],
    out: Path | str,
    *,
    gpus: int = 0,
    processes: int | None = None,
    progress: str = "metrics.jsonl",
    on_row: Callable[[Row], None] | None = None,
    torchrun: Sequence[str] | None = None,
    until: float | None = None,
) -> None:
    """Run ``python -m module args`` under torchrun and wait for it to end.

    Args:
        out: the run's folder: everything the child prints goes to ``out/log.txt``.
        gpus: processes with one GPU each; 0 runs one process on the CPU, with all its cores.
        processes: this many processes on the CPU instead (``gpus`` must be 0).
        progress: a JSON-lines file in ``out``; each row appended to it from now on goes to ``on_row``.
        torchrun: options passed through for several hosts, as ``["--nnodes", "2", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "host0:29400"]``; (): what torchrun's own ``PET_NNODES``, ``PET_RDZV_ENDPOINT``
            and so on say. None: this host alone, whatever those say.
        until: the time (``time.monotonic()``) at which a child that still runs is stopped.

    Raises:
        Died: the child failed without a sentence of its own, or one of its processes hung; what is known, and
            the log's path.
        KitError: it was stopped, or failed with that sentence.
    """
    out = files.make_folder(out)
    log, error_file = out / "log.txt", out / "error.json"
    error_file.unlink(missing_ok=True)
    count = processes or max(gpus, 1)
    command = [sys.executable, "-m", "kitlib.runtime.launch", str(os.getpid()), *_rendezvous(torchrun)]
    command += ["--nproc-per-node", str(count), "-m", module, *map(str, args)]
    rows = _follow(out / progress)
    next(rows)  # start at the file's present end
    try:
        handle = log.open("ab")
    except OSError as error:
        raise files.cannot_write(log, error) from error
    with handle, closing(heartbeat.Watch()) as watch:
        environment = _environment(error_file, gpus, count, alone=torchrun is None)
        log_start = handle.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env=environment | watch.environment,
            start_new_session=True,
        )
        try:
            hanging = _follow_to_the_end(process, watch, rows, on_row, until)
        finally:
            _stop(process)
            watch.kill()
    if hanging is not None:
        raise Died(f"{module} was stopped: {hanging}; the whole story is in {log}")
    if process.returncode != 0 and until is not None and time.monotonic() >= until:
        raise KitError(f"{module} was stopped, as its time was over; what it has done is kept")
    if process.returncode != 0:
        raise _failure(module, process.returncode, error_file, log, log_start)


class Bar:
    """A plain ``tqdm`` bar fed with progress rows; reads well in a notebook, on a terminal and in a log.

    Args:
        total: the count at which the work is done.
        title: shown before the bar.
        key: the row's key that holds the count done so far.
        shown: keys whose latest values are shown after the bar.
    """

    def __init__(
        self, total: int, title: str, key: str = "iteration", shown: Sequence[str] = ("total_loss", "map")
    ):
        from tqdm import tqdm

        self.key, self.shown, self.latest = key, shown, {}
        terminal = sys.stdout.isatty()
        every = 0.2 if terminal else 5.0  # each refresh is a message in a notebook, a line in a log
        # On stdout: a notebook shows stderr as if it were an error.
        self.bar = tqdm(total=total, desc=title, mininterval=every, dynamic_ncols=terminal, file=sys.stdout)

    def __call__(self, row: Row) -> None:
        if "note" in row:
            self.bar.write(str(row["note"]), file=sys.stdout)
        self.latest |= {k: f"{row[k]:.3g}" for k in self.shown if isinstance(row.get(k), int | float)}
        self.bar.set_postfix(self.latest, refresh=False)
        self.bar.update(row.get(self.key, self.bar.n) - self.bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def child(main: Callable[[], None]) -> None:
    """Run ``main`` in a launched process: its error reaches the parent, which it never outlives."""
    watch_parent(os.getppid(), lambda: os._exit(1))
    heartbeat.start(heartbeat.process_name())
    try:
        lock.join()
        main()
    except KitError as error:
        _fail(error, str(error))
    except Exception as error:
        _fail(error, reason(error))


def gpus_asked() -> int | None:
    """In a child: the GPUs that its launcher asked for on this host (0: run on the CPU); None where torchrun
    was started by hand, as on the further ones of several hosts."""
    return int(os.environ[_GPUS]) if _GPUS in os.environ else None


def watch_parent(parent: int, then: Callable[[], object]) -> None:
    """Call ``then`` from a background thread once process ``parent`` is no longer this process's parent."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        then()

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()


def row(line: bytes) -> Row | None:
    """A line of a progress file; None for an empty one, or half of one that a child left when it died."""
    try:
        return json.loads(line) if line.startswith(b"{") else None
    except ValueError:
        return None


def _rendezvous(torchrun: Sequence[str] | None) -> list[str]:
    told = any(name.startswith((f"{_TORCHRUN}NNODES", f"{_TORCHRUN}RDZV")) for name in os.environ)
    return list(torchrun) if torchrun or (torchrun is not None and told) else ["--standalone"]


def _environment(error_file: Path, gpus: int, processes: int, alone: bool) -> dict[str, str]:
    """The child's environment; ``alone``: without what would make torchrun wait for other hosts."""
    given = threads.environment(processes)
    kept = {k: v for k, v in given.items() if not (alone and k.startswith(_TORCHRUN))}
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
    added = {_ERROR_FILE: str(error_file.resolve()), _GPUS: str(gpus), "PYTHONPATH": path}
    if gpus == 0:
        added["CUDA_VISIBLE_DEVICES"] = ""
    return {**_shared_memory(gpus), **kept, **added}


def _shared_memory(gpus: int) -> dict[str, str]:
    """What makes NCCL do without shared memory between several GPUs where a container has little of it."""
    if gpus < 2 or not SHARED_MEMORY.is_dir() or "NCCL_SHM_DISABLE" in os.environ:
        return {}
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free >= NCCL_BYTES:
        return {}
    print(
        f"{SHARED_MEMORY} has {free >> 20} MB free, too little for the traffic between {gpus} GPUs, so it "
        "goes through sockets, more slowly; start the container with --shm-size=1g (docker) to mend that"
    )
    return {"NCCL_SHM_DISABLE": "1"}


def _follow_to_the_end(
    process: subprocess.Popen[bytes],
    watch: heartbeat.Watch,
    rows: Iterator[list[Row]],
    on_row: Callable[[Row], None] | None,
    until: float | None,
) -> str | None:
    """Hand on the rows until the child has ended or its time is over; what hangs, where something does."""
    running = True
    while running and (until is None or time.monotonic() < until):
        try:
            process.wait(POLL_SECONDS)
            running = False
        except subprocess.TimeoutExpired:
            pass
        for row in next(rows):
            if on_row is not None:
                on_row(row)
        hanging = watch.look() if running else None
        if hanging is not None:
            watch.kill()
            return hanging
    return None


def _follow(path: Path) -> Iterator[list[Row]]:
    """Yield [] first, then at each step the whole rows appended since.

    A file that got shorter, as a resumed run's, is read on from its new end.
    """
    position = path.stat().st_size if path.exists() else 0
    yield []
    while True:
        rows = []
        if path.exists():
            with path.open("rb") as file:
                position = min(position, file.seek(0, os.SEEK_END))
                file.seek(position)
                whole, newline, _ = file.read().rpartition(b"\n")
            position += len(whole) + len(newline)
            rows = list(filter(None, map(row, whole.splitlines())))
        yield rows


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs: torchrun passes the signal on to its workers."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure(module: str, status: int, error_file: Path, log: Path, log_start: int = 0) -> KitError:
    """What to tell the user about a failed child, whose output begins at ``log_start`` of the log."""
    try:
        found = files.read_json(error_file)
    except KitError:
        if shutil.disk_usage(log.parent).free < _A_LOG:  # it could not even say so
            return files.cannot_write(log, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        found = {"kind": "", "error": f"exit status {status}"}
        if out_of_memory(_tail(log, log_start)):
            found["error"] = "there is not enough memory; close other programs or use a larger machine"
    if found["kind"] == "KitError":
        return KitError(found["error"])
    return Died(f"{module} stopped: {found['error']}; the whole story is in {log}")


def _tail(log: Path, start: int) -> str:
    """The last part of what a log holds from ``start`` on."""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _A_LOG, start))
        return file.read().decode(errors="replace")


def _fail(error: BaseException, sentence: str) -> NoReturn:
    """Report and leave at once: a normal exit can hang in a communication library whose peers are gone."""
    logger.error("%s", sentence, exc_info=error)
    _report(type(error).__name__, sentence)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(1)


def _report(kind: str, sentence: str) -> None:
    """Write the error file, unless another process has already put a better cause there."""
    rank = {"KitError": 2, "killed": 1}
    path = Path(os.environ.get(_ERROR_FILE, ""))
    try:
        if path.is_file() and rank.get(files.read_json(path)["kind"], 0) >= rank.get(kind, 0):
            return
        if path.name:
            files.write_json(path, {"kind": kind, "error": sentence})
    except KitError as error:
        logger.error("%s", error)


def _agent(parent: int, arguments: list[str]) -> None:
    """The torchrun process itself: stops its workers when the parent dies, says which was killed."""
    watch_parent(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    heartbeat.start("torchrun")
    run = import_module("torch.distributed.run")  # by name: only this process of the launcher's loads torch
    errors = import_module("torch.distributed.elastic.multiprocessing.errors")
    try:
        run.run(run.parse_args(arguments))
    except errors.ChildFailedError as error:
        for rank, failure in error.failures.items():
            if (
                failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
            ):  # torchrun ends the others with SIGTERM
                _report("killed", _killed(rank, failure.exitcode))
        sys.exit(1)


def _killed(rank: int, exitcode: int) -> str:
    name = signal.Signals(-exitcode).name
    hint = (
        " (often the host ran out of memory: try fewer workers or images_per_batch)"
        if name == "SIGKILL"
        else ""
    )
    return f"process {rank} was killed by {name}{hint}"


if __name__ == "__main__":
    _agent(int(sys.argv[1]), sys.argv[2:])
