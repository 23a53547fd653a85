"""Files that are either the old whole or the new whole, never half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from kitlib.errors import KitError

if TYPE_CHECKING:
    import pandas as pd


_BLOCK = 1 << 20
# The names of temporary files begin with it, so that one which a killed process left is known as such.
_UNFINISHED = ".unfinished-"


def cannot_write(path: Path | str, error: OSError) -> KitError:
    """The error for a failed write: the path, the reason, the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "the disk is full; free some space and run again, what was written before is intact"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "the folder is not writable; change its permissions or choose another with --out"
    else:
        remedy = f"{error.strerror or error}; choose another folder with --out"
    return KitError(f"cannot write {path}: {remedy}")


def make_folder(path: Path | str) -> Path:
    """Make ``path`` and its parents, and return it.

    Raises:
        KitError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return Path(path)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced to disk and renamed into place.

    When the block raises, ``path`` is left as it was and the temporary file is removed.

    Raises:
        KitError: the disk is full or the folder not writable.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _sync(temporary)
        # mkstemp made the file private.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of ``atomic`` below a folder in which no process writes.

    A process that was killed leaves them.
    """
    for path in folder.rglob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> Path:
    """Write ``text`` to ``path`` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``value`` to ``path`` as indented JSON, atomically."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path | str, table: pd.DataFrame) -> Path:
    """Write ``table`` to ``path`` as CSV without its index, atomically."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        KitError: the file is missing, or is not whole JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KitError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise KitError(
            f"{path} is not whole JSON ({error}); it may be cut short: copy or download it again"
        ) from error
    except OSError as error:
        raise KitError(f"cannot read {path}: {error.strerror}") from error


def stays_inside(path: PurePath) -> bool:
    """Whether a path leads nowhere but below the folder that it is joined to."""
    return not path.is_absolute() and ".." not in path.parts


def fingerprint(*parts: Path | str) -> str:
    """A short hash (16 hex digits) of texts and of the contents of files given as ``Path``."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            digest.update(part.stat().st_size.to_bytes(8, "little"))
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        else:
            # The name of a file may be no UTF-8.
            data = str(part).encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
