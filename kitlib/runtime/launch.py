"""Heavy work in child processes, one a GPU, watched from a notebook or a terminal.

``launch`` starts them, follows the rows that they append to a progress file, and hands their own error
sentence back. Several processes are started by ``python -m torch.distributed.run``. One process is started
directly, with the variables that torchrun would set: torchrun would first import torch for itself, which
takes seconds. The child's ``main`` goes through ``child``. The parent imports no torch.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from kitlib import files
from kitlib.errors import KitError
from kitlib.offline import out_of_memory, reason
from kitlib.runtime import heartbeat, lock
from kitlib.runtime.progress import Row, follow

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# Bytes of a log: what must be free on the disk for a child's messages, and what is read of their end.
_LOG_BYTES = 1 << 16
# Between asking the child to stop and killing it.
_GRACE_SECONDS = 15.0
_WATCH_SECONDS = 1.0
_SHARED_MEMORY = Path("/dev/shm")
# Shared memory for a host's GPUs: the least that DeepSpeed's own check asks for.
NCCL_BYTES = 512 << 20
_ERROR_FILE = "KIT_ERROR_FILE"
_GPUS = "KIT_GPUS"
_PARENT = "KIT_PARENT"
_SHARE = "KIT_SHARE"
# A command that starts what follows it on each of the hosts that torchrun's variables speak of, as srun does.
_ON_EACH_HOST = "KIT_ON_EACH_HOST"
# The variables that torchrun reads as its options begin so.
_TORCHRUN = "PET_"
_STANDALONE = ["--standalone"]
# What torchrun would tell the only process of a launch; port 0 is any that is free.
_ALONE = {
    **{"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
}
# A thread of OpenMP that waits for the others sleeps at once. A thread that spins takes the cores from those
# that it waits for: on two cores beside other busy processes, a training step took 16 times as long or more,
# and 8 times the CPU time. GOMP_SPINCOUNT, which libgomp obeys before the policy, brings that back.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
# glibc keeps freed memory of a network's layers for the next ones. By default it hands large blocks back at
# once, and the kernel clears each page again: a third of the CPU time of a prediction.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}


class Died(KitError):
    """A child ended without an error sentence of its own: it was killed, hung, or met an unforeseen error."""


@dataclass(frozen=True)
class Place:
    """That of a launch among several ones side by side, which share this host's GPUs and cores.

    Attributes:
        number: of this one, from 0.
        count: how many there are.
        stop: once it is set, the launch is stopped.
    """

    number: int
    count: int
    stop: threading.Event

    def visible(self, gpus: int) -> str:
        """What ``CUDA_VISIBLE_DEVICES`` is, for as many GPUs each."""
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = given.split(",") if given else list(map(str, range(gpus * self.count)))
        return ",".join(names[gpus * self.number : gpus * (self.number + 1)])


class Interrupted(KeyboardInterrupt):
    """The user interrupted a job; the text is one sentence that says what of it remains."""


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
    place: Place | None = None,
) -> None:
    """Run ``python -m module args`` in child processes and wait for them to end.

    Args:
        module: the child's module, as ``"kitlib.train"``.
        args: the module's arguments.
        out: the run's folder: everything the child prints goes to ``out/log.txt``.
        gpus: processes with one GPU each; 0 runs one process on the CPU, with all its cores.
        processes: this many processes on the CPU instead (``gpus`` must be 0).
        progress: a JSON-lines file in ``out``.
        on_row: called with each row that is appended to ``progress`` from now on.
        torchrun: options passed through for several hosts, as ``["--nnodes", "2", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "host0:29400"]``; (): what torchrun's own ``PET_NNODES``, ``PET_RDZV_ENDPOINT``
            and so on say. None: this host alone, whatever those say.
        until: the time (``time.monotonic()``) at which a child that still runs is stopped.
        place: that among launches side by side; None: all GPUs and cores are there for this one.

    Raises:
        Died: the child failed without an error sentence of its own, or one of its processes hung; the error
            says what is known, and the log's path.
        KitError: the child was stopped at ``until`` or by its ``place``, or failed with a KitError of its
            own, which is repeated.
        Interrupted: the user interrupted it; none of its processes is left.
    """
    out = files.make_folder(out)
    log, error_file = out / "log.txt", out / "error.json"
    error_file.unlink(missing_ok=True)
    count = processes or max(gpus, 1)
    rendezvous = _rendezvous(torchrun)
    alone = count == 1 and rendezvous == _STANDALONE
    starter = [] if rendezvous else shlex.split(os.environ.get(_ON_EACH_HOST, ""))
    # The starter has the agents for children on every host, and ends them when it is ended.
    parent = "parent" if starter else str(os.getpid())
    agent = ["kitlib.runtime.launch", parent, *rendezvous, "--nproc-per-node", str(count), "-m"]
    command = [*starter, sys.executable, "-m", *([] if alone else agent), module, *map(str, args)]
    rows = follow(out / progress)
    # The first step finds the file's present end.
    next(rows)
    try:
        handle = log.open("ab")
    except OSError as error:
        raise files.cannot_write(log, error) from error
    with handle, closing(heartbeat.Watch()) as watch:
        variables = _variables(error_file, gpus, count, one_host=torchrun is None, place=place)
        variables |= {**_ALONE, _PARENT: str(os.getpid())} if alone else {_PARENT: ""}
        log_start = handle.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env=variables | watch.environment,
            start_new_session=True,
        )
        try:
            hanging = _follow_to_the_end(process, watch, rows, on_row, until, place)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; what was saved until then stays in {out}") from None
        finally:
            _stop(process)
            watch.kill()
    if hanging is not None:
        raise Died(f"{module} was stopped: {hanging}; the whole story is in {log}")
    if process.returncode != 0 and place and place.stop.is_set():
        raise KitError(f"{module} was stopped, as another one beside it was; it goes on from its checkpoint")
    if process.returncode != 0 and until is not None and time.monotonic() >= until:
        raise KitError(f"{module} was stopped, as its time was over; what it wrote until then remains")
    if process.returncode != 0:
        raise _failure(module, process.returncode, error_file, log, log_start)


def child(main: Callable[[], None]) -> None:
    """Run ``main`` in a launched process: its error reaches the parent, which it never outlives."""
    end_with_parent(int(os.environ.get(_PARENT) or os.getppid()))
    heartbeat.start(heartbeat.process_name())
    try:
        lock.join()
        main()
    except KitError as error:
        _fail(error, str(error))
    except Exception as error:
        _fail(error, reason(error))


def gpus_asked() -> int:
    """In a child: the GPUs that its launcher asked for on each host; 0 means the CPU."""
    return int(os.environ.get(_GPUS, "0"))


def share() -> tuple[int, int]:
    """In a child: its number among the processes that share its job out, and how many they are.

    Those are of this launch, or of several launches with ``share_variables``.
    """
    launch_number, launches = map(int, os.environ.get(_SHARE, "0 1").split())
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return launch_number * world + rank, launches * world


def share_variables(number: int, launches: int) -> dict[str, str]:
    """The environment of one of several launches, of equal numbers of processes, that share a job out."""
    return {_SHARE: f"{number} {launches}"}


def progress_of_share(name: str, number: int | None = None) -> str:
    """The progress file of one of the launches that share a job out, by default in a child its own launch's.

    Hosts that append to the same file of a network file system would overwrite each other's rows.

    Args:
        name: the file of the first launch, ``"progress.jsonl"``.
        number: of the launch.
    """
    if number is None:
        number = int(os.environ.get(_SHARE, "0").split()[0])
    path = Path(name)
    return f"{path.stem}.{number}{path.suffix}" if number else name


def end_with_parent(parent: int) -> None:
    """End this process once process ``parent`` is no longer its parent."""
    _watch_parent(parent, lambda: os._exit(1))


def _watch_parent(parent: int, then: Callable[[], object]) -> None:
    """Call ``then`` from a background thread once process ``parent`` is no longer this process's parent."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        then()

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()


def _rendezvous(torchrun: Sequence[str] | None) -> list[str]:
    in_environment = any(n.startswith((f"{_TORCHRUN}NNODES", f"{_TORCHRUN}RDZV")) for n in os.environ)
    return list(torchrun) if torchrun or (torchrun is not None and in_environment) else _STANDALONE


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(processes: int = 0) -> dict[str, str]:
    """This process's environment for a child, with how its threads wait and how many they are.

    What the user has set is left as it is. Image workers use one thread each, for a small part of the time:
    the threads of the training need not leave a core to them.

    Args:
        processes: as many processes with equal shares of the cores; 0 leaves the number of threads alone.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // processes))} if processes else {}
    return {**_PASSIVE, **threads, **os.environ}


def with_kit(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a child imports this very kit, wherever it runs."""
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_parent, variables.get("PYTHONPATH", "")]))
    return {**variables, "PYTHONPATH": path}


def _variables(
    error_file: Path, gpus: int, processes: int, one_host: bool, place: Place | None = None
) -> dict[str, str]:
    """The child's environment; with ``one_host`` without what would make torchrun wait for other hosts."""
    beside = place.count if place else 1
    inherited = with_kit(environment(processes * beside))
    if one_host:
        inherited = {name: value for name, value in inherited.items() if not name.startswith(_TORCHRUN)}
    added = {_ERROR_FILE: str(error_file.resolve()), _GPUS: str(gpus)}
    if gpus == 0:
        added["CUDA_VISIBLE_DEVICES"] = ""
        inherited = {**_KEEP_MEMORY, **inherited}
    elif place:
        added["CUDA_VISIBLE_DEVICES"] = place.visible(gpus)
    return {**_shared_memory(gpus), **inherited, **added}


def _shared_memory(gpus: int) -> dict[str, str]:
    """The variable that makes NCCL do without shared memory, for several GPUs where there is too little."""
    said = lacks_shared_memory(gpus)
    if not said:
        return {}
    print(said)
    return {"NCCL_SHM_DISABLE": "1"}


def lacks_shared_memory(gpus: int) -> str:
    """What follows from too little shared memory for some GPUs, and the remedy; "" if there is enough."""
    if gpus < 2 or not _SHARED_MEMORY.is_dir() or "NCCL_SHM_DISABLE" in os.environ:
        return ""
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free >= NCCL_BYTES:
        return ""
    return (
        f"{_SHARED_MEMORY} has {free >> 20} MB free, too little for the traffic between {gpus} GPUs, so it "
        "goes through sockets, more slowly; to avoid that, start the container with --shm-size=1g (docker)"
    )


def _follow_to_the_end(
    process: subprocess.Popen[bytes],
    watch: heartbeat.Watch,
    rows: Iterator[list[Row]],
    on_row: Callable[[Row], None] | None,
    until: float | None,
    place: Place | None,
) -> str | None:
    """Hand the rows on until the child has ended or its time is over; says which process hangs, if one does.

    Args:
        process: the only process, or torchrun, which ends when its workers have ended.
        watch: hears the child's processes.
        rows: as ``follow`` gives them.
        on_row: called with each row.
        until: the time (``time.monotonic()``) at which to stop waiting; None waits for the end.
        place: says as well when to stop.
    """
    running = True
    while running and (until is None or time.monotonic() < until) and not (place and place.stop.is_set()):
        try:
            process.wait(_POLL_SECONDS)
            running = False
        except subprocess.TimeoutExpired:
            pass
        for row in next(rows):
            if on_row is not None:
                on_row(row)
        hanging = watch.hanging() if running else None
        if hanging is not None:
            watch.kill()
            return hanging
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs; torchrun passes the signal on to its workers."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # Whoever interrupts a second time does not want to wait; workers end with their torchrun.
        process.kill()
        process.wait()


def _failure(module: str, status: int, error_file: Path, log: Path, log_start: int = 0) -> KitError:
    """The error for a failed child, whose output begins at byte ``log_start`` of the log."""
    try:
        found = files.read_json(error_file)
    except KitError:
        # A child that finds the disk full cannot write the error file either.
        if shutil.disk_usage(log.parent).free < _LOG_BYTES:
            return files.cannot_write(log, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        found = {"kind": "", "error": killed("it", status) if status < 0 else f"exit status {status}"}
        if out_of_memory(_tail(log, log_start)):
            found["error"] = "there is not enough memory; close other programs or use a larger machine"
    if found["kind"] == "KitError":
        return KitError(found["error"])
    return Died(f"{module} stopped: {found['error']}; the whole story is in {log}")


def _tail(log: Path, start: int) -> str:
    """The end of a log, of what was written from byte ``start`` on."""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _LOG_BYTES, start))
        return file.read().decode(errors="replace")


def _fail(error: BaseException, sentence: str) -> NoReturn:
    """Report and leave at once: a normal exit can hang in a communication library whose peers are gone."""
    _logger.error("%s", sentence, exc_info=error)
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
        _logger.error("%s", error)


def _agent(parent: int, arguments: list[str]) -> None:
    """The torchrun process itself: stops its workers when the parent dies, says which was killed."""
    _watch_parent(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    heartbeat.start("torchrun")
    # Imported by name, as of the launcher's processes only this one loads torch.
    run = import_module("torch.distributed.run")
    errors = import_module("torch.distributed.elastic.multiprocessing.errors")
    try:
        run.run(run.parse_args(arguments))
    except errors.ChildFailedError as error:
        for rank, failure in error.failures.items():
            # torchrun ends the processes that did not fail with SIGTERM.
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                _report("killed", killed(f"process {rank}", failure.exitcode))
        sys.exit(1)


def killed(who: str, exitcode: int) -> str:
    """What to tell of a process with a negative exit code."""
    name = signal.Signals(-exitcode).name
    hint = (
        " (often the host ran out of memory: try fewer workers or images_per_batch)"
        if name == "SIGKILL"
        else ""
    )
    return f"{who} was killed by {name}{hint}"


if __name__ == "__main__":
    _agent(os.getppid() if sys.argv[1] == "parent" else int(sys.argv[1]), sys.argv[2:])
