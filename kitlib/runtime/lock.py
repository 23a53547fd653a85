"""One run at a time in a run's folder.

A file in the folder is locked (flock) by whoever writes there: the process that runs the notebooks, their
kernels, and the processes of their trainings. The operating system unlocks it when a process ends, however it
ends: a crashed run blocks nobody, and a run that was killed blocks the next one only until the last of its
processes has ended, too.

The first process takes the lock alone, writes into the file who it is, and then shares the lock with the
processes that it starts, which know it from an environment variable. Notebooks that were started by hand
share it as well.

On network file systems flock works between hosts where the server supports locks (NFS from version 4 on).
Where a file system supports none, nothing is locked, and a sentence says so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from kitlib import files
from kitlib.errors import KitError

NAME = ".run.lock"
# How long to wait for the processes of a run that was killed: they notice it within seconds.
WAIT_SECONDS = 60.0
_VARIABLE = "KIT_RUN_LOCK"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# The files that this process has locked.
_locked: dict[Path, IO[str]] = {}


@dataclass(frozen=True)
class _Holder:
    """Who took a lock: a run of several notebooks, or one notebook that was started by hand."""

    kind: Literal["run", "notebook"]
    title: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"the {self.kind} '{self.title[:80]}' (process {self.pid} on {self.host}, since {self.since})"

    @property
    def has_ended(self) -> bool:
        """Whether its process is known to have ended; the processes that it started may still live."""
        if self.host != socket.gethostname():
            return False
        try:
            # Signal 0 sends nothing, but fails where there is no such process.
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


@contextmanager
def hold(folder: Path, title: str) -> Iterator[None]:
    """Lock a run's folder while the block runs; processes started in it share the lock until they end.

    Raises:
        KitError: another run or notebook writes there; who, and since when.
    """
    _take(folder, "run", title)
    try:
        yield
    finally:
        leave(folder)


def enter(folder: Path, title: str) -> None:
    """In a notebook: share the lock of the run that started it, or lock the run's folder until ``leave``.

    Raises:
        KitError: another run writes there; who, and since when.
    """
    path, holder = _inherited()
    if path == folder / NAME and holder == _read(path):
        join()
    else:
        _take(folder, "notebook", title)


def leave(folder: Path) -> None:
    """Unlock a folder for this process; it stays locked for the processes that share the lock."""
    file = _locked.pop(folder / NAME, None)
    if file is not None:
        file.close()


def join() -> None:
    """In a process that a run or a notebook started: share its lock until this process ends.

    Raises:
        KitError: the run has ended, and another one has taken its folder.
    """
    path, holder = _inherited()
    if path is None or path in _locked or not path.exists():
        return
    file = _open(path)
    if not _lock(file, fcntl.LOCK_SH) or holder != _read(path):
        file.close()
        raise KitError(f"{path.parent} was taken by {_read(path)}, after the run of this process had ended")
    _locked[path] = file


def _take(folder: Path, kind: Literal["run", "notebook"], title: str) -> None:
    path = files.make_folder(folder) / NAME
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = _Holder(kind, title, os.getpid(), socket.gethostname(), since)
    leave(folder)
    file = _open(path)
    if _take_alone(file, holder):
        file.truncate(0)
        file.write(json.dumps(asdict(holder)))
        file.flush()
    # Between the two locks the file was unlocked for a moment: another process may have taken it.
    if not _lock(file, fcntl.LOCK_SH):
        file.close()
        raise _in_use(path)
    _locked[path] = file
    os.environ[_VARIABLE] = json.dumps({"path": str(path), **asdict(_read(path) or holder)})


def _take_alone(file: IO[str], holder: _Holder) -> bool:
    """Lock a file for this process alone; False where notebooks share it, and this is a further one."""
    path, deadline = Path(file.name), time.monotonic() + WAIT_SECONDS
    while not _lock(file, fcntl.LOCK_EX):
        present = _read(path)
        if present is not None and present.kind == holder.kind == "notebook":
            return False
        if present is None or not present.has_ended or time.monotonic() > deadline:
            file.close()
            raise _in_use(path)
        time.sleep(0.1)
    return True


def _in_use(path: Path) -> KitError:
    holder = _read(path) or "another process"
    return KitError(
        f"{path.parent} is in use by {holder}; wait until it has ended, stop it, or choose another folder "
        "with --out"
    )


def _inherited() -> tuple[Path, _Holder] | tuple[None, None]:
    """The locked file and its holder, as the process that started this one had them."""
    values = json.loads(os.environ.get(_VARIABLE, "{}"))
    return (Path(values.pop("path")), _Holder(**values)) if values else (None, None)


def _read(path: Path) -> _Holder | None:
    """Who took the lock last; None where that cannot be read."""
    try:
        return _Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _open(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise files.cannot_write(path, error) from error


def _lock(file: IO[str], mode: int) -> bool:
    """Lock a file without waiting; False where another process has locked it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise files.cannot_write(file.name, error) from error
        if mode == fcntl.LOCK_EX:
            print(f"{file.name}: this file system supports no locks; start no second run into this folder")
    return True
