"""A file from the web, gone on with where it was broken off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import requests

from kitlib.errors import KitError
from kitlib.files import cannot_write, make_folder, read_json, write_json
from kitlib.kaggle.remote.retry import LOST, Retry, reason
from kitlib.kaggle.remote.source import Broken, Source

PIECE = 1 << 16  # the piece that comes when the line breaks is lost


def fetch(source: Source, path: Path, retry: Retry, what: str) -> Path:
    """Write the file to ``path``, going on with the half of it that an earlier call left.

    The half lies in ``path`` with ``.part`` added, and beside it what file it is of; the half of another
    version is thrown away. As long as there is progress there are further attempts.

    Raises:
        KitError: the disk is full, or the line stays broken; what has come is kept for the next call.
    """
    part, note = _beside(path, ".part"), _beside(path, ".part.json")
    make_folder(path.parent)
    if not _is_half(part, note, source):
        part.unlink(missing_ok=True)
        if source.tag is not None:
            write_json(note, {"tag": source.tag, "size": source.size})
    failures = 0
    while True:
        had = _size(part)
        try:
            _go_on(source, part, retry.say, what)
            break
        except (Broken, *LOST, requests.HTTPError) as error:
            failures = 1 if _size(part) > had else failures + 1
            wait = (
                retry.pause * 2 ** (failures - 1)
                if isinstance(error, Broken)
                else retry.wait(error, failures)
            )
            if failures >= retry.tries or wait is None:
                have = size_text(_size(part))
                raise KitError(
                    f"cannot download {what}: {_why(error)}; run again to go on after {have}"
                ) from error
            retry.rest(min(wait, retry.longest), _why(error))
        except requests.RequestException:
            raise
        except OSError as error:
            raise cannot_write(part, error) from error
    os.replace(part, path)
    note.unlink(missing_ok=True)
    return path


def discard(path: Path) -> None:
    """Remove ``path``, and what an earlier call left of it."""
    for one in (path, _beside(path, ".part"), _beside(path, ".part.json")):
        one.unlink(missing_ok=True)


def _go_on(source: Source, part: Path, say: Callable[[str], None], what: str) -> None:
    have = _size(part)
    if source.size is not None and have == source.size and have:
        return
    if have and not source.ranges:
        have = 0
    if have:
        say(f"going on with {what} after {size_text(have)} of {size_text(source.size or 0)}")
    try:
        answer = source.open(have)
    except Broken:
        part.unlink(missing_ok=True)
        raise
    with closing(answer), part.open("ab" if have else "wb") as file:
        progress = Progress(what, source.size, have, say)
        for piece in answer.iter_content(PIECE):
            file.write(piece)
            progress.add(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if source.size is not None and _size(part) != source.size:
        if _size(part) > source.size:
            part.unlink()
        raise Broken("it came in another length than announced")


class Progress:
    """A line at each tenth of a big file, and not more than one in two seconds."""

    def __init__(self, what: str, size: int | None, have: int, say: Callable[[str], None]) -> None:
        self.what, self.size, self.have, self.say = what, size, have, say
        self.tenth, self.told = have * 10 // (size or 1), time.monotonic()

    def add(self, count: int) -> None:
        self.have += count
        tenth = self.have * 10 // (self.size or 1)
        if self.size and tenth > self.tenth and time.monotonic() - self.told > 2:
            self.tenth, self.told = tenth, time.monotonic()
            self.say(f"{self.what}: {size_text(self.have)} of {size_text(self.size)}")


def size_text(size: int) -> str:
    """Bytes as people say them.

    Example:
        >>> size_text(0), size_text(1234), size_text(2_500_000_000)
        ('0 B', '1.2 kB', '2.5 GB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size} B"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _is_half(part: Path, note: Path, source: Source) -> bool:
    """Whether what lies there is a beginning of this very file."""
    if not part.is_file() or part.is_symlink() or not source.ranges or source.tag is None:
        return False
    try:
        told = read_json(note)
    except KitError:
        return False
    return told == {"tag": source.tag, "size": source.size} and _size(part) <= source.size


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, Broken) else reason(error)
