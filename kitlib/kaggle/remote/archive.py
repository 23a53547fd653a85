"""Unpacking a zip into a folder that nothing of it may leave."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kitlib.errors import KitError
from kitlib.files import cannot_write, make_folder

PIECE = 1 << 20


def entries(archive: zipfile.ZipFile, folder: Path, name: str) -> dict[Path, zipfile.ZipInfo]:
    """The files of an archive by where they go, all of them below ``folder``. Nothing is written.

    Raises:
        KitError: an absolute path or one that leaves the folder (through a link that lies there, too), a link
            or another thing that is no file, a name twice, or an encrypted file.
    """
    root = folder.resolve()
    found: dict[Path, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        target = root / _inside(info, name)
        if info.is_dir():
            continue
        if not target.parent.resolve().is_relative_to(root):
            raise KitError(
                f"{name} would write '{info.filename}' through a link out of {folder}; remove the link"
            )
        if target in found:
            raise KitError(f"{name} holds '{info.filename}' twice; nothing was unpacked, do not use it")
        found[target] = info
    return found


def _inside(info: zipfile.ZipInfo, name: str) -> PurePosixPath:
    path = PurePosixPath(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    outside = path.is_absolute() or ".." in path.parts or not path.parts
    if outside or "\\" in info.filename or ":" in path.parts[0]:
        raise KitError(
            f"{name} holds '{info.filename}', which leaves the folder; nothing was unpacked, do not use it"
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise KitError(
            f"{name} holds '{info.filename}', which is a link; nothing was unpacked, do not use it"
        )
    if info.flag_bits & 1:
        raise KitError(f"{name} holds '{info.filename}', which is encrypted; unpack it yourself")
    return path


def missing(found: dict[Path, zipfile.ZipInfo]) -> dict[Path, zipfile.ZipInfo]:
    """Those files that do not lie there whole: of the same length and checksum."""
    return {path: info for path, info in found.items() if not _is_there(path, info)}


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    try:
        if path.stat().st_size != info.file_size:
            return False
        checksum = 0
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                checksum = zlib.crc32(piece, checksum)
    except OSError:
        return False
    return checksum == info.CRC


def unpack(archive: zipfile.ZipFile, wanted: dict[Path, zipfile.ZipInfo], name: str) -> None:
    """Write the files, each of them whole or not at all.

    Raises:
        KitError: the archive is damaged, or the disk full; what was written stays.
    """
    for path, info in wanted.items():
        make_folder(path.parent)
        part = path.with_name(f".{path.name}.part")
        try:
            part.unlink(missing_ok=True)
            with archive.open(info) as packed, part.open("xb") as file:
                shutil.copyfileobj(packed, file, PIECE)
            os.replace(part, path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            part.unlink(missing_ok=True)
            raise Damaged(f"{name} is damaged at '{info.filename}' ({error})") from error
        except OSError as error:
            part.unlink(missing_ok=True)
            raise cannot_write(path, error) from error


class Damaged(KitError):
    """The archive is not whole; another download may be."""


def size_of(infos: Iterable[zipfile.ZipInfo]) -> int:
    """Bytes of the files when unpacked."""
    return sum(info.file_size for info in infos)
