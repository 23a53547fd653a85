"""The files of a data folder, and whether they are those of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kitlib import files
from kitlib.errors import KitError

#: The folder of a run whose files spare a second reading of the data; it may be removed at any time.
CACHE = "cache"
# Above this many bytes, such as archives and scans, the time of change counts in place of the contents.
_LARGE = 64 * 2**20
# What is known of a file: its size, its time of change in nanoseconds, and the hash of its contents.
_State = tuple[int, int, str]


@dataclass(frozen=True)
class DataFiles:
    """The files of a data folder.

    Attributes:
        states: of each by its name in there.
        is_remembered: whether the run that ``read`` was given remembers exactly these.
    """

    states: dict[str, _State]
    is_remembered: bool

    @property
    def fingerprint(self) -> str:
        """A short hash of all names and contents; a copy, or a folder mounted anew, has the same."""
        parts = (f"{name} {size} {content}" for name, (size, _, content) in self.states.items())
        return files.fingerprint(*sorted(parts))

    def remember(self, out: Path) -> None:
        """Keep in the cache of a run what the contents are, so that ``read`` need not read them again."""
        if not self.is_remembered:
            files.write_json(_remembered(out), self.states)


def read(data: Path, out: Path) -> DataFiles:
    """What lies in a data folder.

    A file whose size and time of change are those that the run in ``out`` remembers is not read.

    Args:
        data: the folder.
        out: where results go; it may lie in ``data`` and does not count.
    """
    former, paths = _former(_remembered(out)), dict(_walk(data, out))
    with ThreadPoolExecutor() as pool:
        found = pool.map(_state, paths.values(), map(former.get, paths))
        states = dict(zip(paths, found, strict=True))
    return DataFiles(states, states == former)


def _remembered(out: Path) -> Path:
    return out / CACHE / "data_files.json"


def _walk(data: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """Each file and its name below ``data``."""
    for folder, below, names in os.walk(data):
        below[:] = [name for name in below if Path(folder, name) != out]
        for name in names:
            path = Path(folder, name)
            if path.exists():  # no link that leads nowhere
                # JSON cannot hold a name that is no UTF-8.
                yield str(path.relative_to(data)).encode("utf-8", "backslashreplace").decode(), path


def _state(path: Path, former: _State | None) -> _State:
    status = path.stat()
    if former and former[:2] == (status.st_size, status.st_mtime_ns):
        return former
    content = str(status.st_mtime_ns)
    if status.st_size <= _LARGE:
        # A file that nobody may read is none of the images: whoever needs it says so.
        with suppress(OSError):
            content = files.fingerprint(path)
    return status.st_size, status.st_mtime_ns, content


def _former(path: Path) -> dict[str, _State]:
    """The states of the last time; none where the file is missing or damaged."""
    try:
        return {name: (size, time, content) for name, (size, time, content) in files.read_json(path).items()}
    except (KitError, TypeError, ValueError, AttributeError):
        return {}
