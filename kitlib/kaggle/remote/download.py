"""``kit download``: a competition's data, whole and unpacked."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from kitlib.data.competition import FOLDER
from kitlib.errors import KitError
from kitlib.files import cannot_write, make_folder
from kitlib.kaggle.remote.client import SITE, Client, connect

_IMAGES = {"train": 606, "train_semi_supervised": 1972, "test": 3}
"""PNG images that the folders of the Sartorius competition hold."""
RESERVE = 100_000_000  # bytes of the disk to leave free
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def download(
    folder: Path | str,
    competition: str = FOLDER,
    keep_archive: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """The competition's data in ``folder``; nothing is downloaded where all of its files are there.

    The archive is downloaded and unpacked in a folder of its own: ``.NAME.download`` beside a new ``folder``,
    ``.download`` in one that exists. It stays after a failure, so that the next run goes on with it.

    Args:
        folder: made when missing.
        competition: its name in the address of its page.
        keep_archive: leave the archive in ``folder`` as well.
        say: prints a line of progress.

    Raises:
        KitError: there are no credentials, the rules are not accepted, there is no network or no room, the
            archive is damaged, or the data is not the competition's.
    """
    if not re.fullmatch(r"[\w-]+", competition):
        raise KitError(
            f"'{competition[:80]}' is not a competition's name; take the one in its address, such as {FOLDER}"
        )
    folder = Path(folder)
    if folder.is_file():
        raise KitError(f"{folder} is a file; choose another folder")
    client = connect(say)
    sizes = _sizes(client, competition)
    missing = [name for name, size in sizes.items() if not _is_there(folder / name, size)]
    if missing or not sizes or (keep_archive and not (folder / f"{competition}.zip").is_file()):
        say(f"{len(missing)} of {len(sizes)} files are missing ({size_text(sum(sizes.values()))} in all)")
        _fetch(client, competition, folder, sum(sizes.values()), keep_archive)
    else:
        say(f"{folder} holds all {len(sizes)} files")
    check(folder, competition)
    return folder


def _sizes(client: Client, competition: str) -> dict[str, int]:
    """The length in bytes of each of the competition's files, by its path."""
    doing = f"list the data of {competition}"
    answers = client.pages(doing, client.api.competition_list_files, competition, _page(competition))
    return {file.name: file.total_bytes for answer in answers for file in answer.files}


def _page(competition: str) -> str:
    return f"{SITE}/competitions/{competition}"


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(client: Client, competition: str, folder: Path, size: int, keep_archive: bool) -> None:
    """Download the archive and put its files into ``folder``, whose files have ``size`` bytes together."""
    beside = folder.parent / f".{folder.name}.download"
    work = make_folder(folder / ".download" if folder.is_dir() else beside)
    archive, beside_data = work / f"{competition}.zip", folder / f"{competition}.zip"
    if beside_data.is_file():
        os.replace(beside_data, archive)
    _check_room(work, 2 * size - (archive.stat().st_size if archive.is_file() else 0))
    _download_archive(client, competition, archive)
    unpacked = _unpack(archive, work / "unpacked")
    _move(unpacked, folder)
    if keep_archive:
        os.replace(archive, beside_data)
    shutil.rmtree(work)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise KitError(
            f"no room in {folder}: the archive and its files need {size_text(needed)}, {size_text(free)} are "
            "free; free some space, or choose another disk"
        )


def _download_archive(client: Client, competition: str, archive: Path) -> None:
    """Download the archive; the client resumes a partial one, and skips a whole one of the same date."""
    try:
        client.call(
            f"download the data of {competition}",
            client.api.competition_download_files,
            competition,
            str(archive.parent),
            quiet=client.quiet,
            page=_page(competition),
        )
    except KitError as error:
        # The client raises it where the archive's length is not the announced one.
        if isinstance(error.__cause__, ValueError):
            archive.unlink(missing_ok=True)
        raise


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack into a new ``folder``. ``zipfile`` writes below it alone, and makes no links.

    Raises:
        KitError: the archive is damaged, in which case it is removed; or the disk is full.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except _DAMAGED as error:
        archive.unlink()
        raise KitError(
            f"{archive} is not a whole zip ({error}); it was removed, run again to download it anew"
        ) from error
    except OSError as error:
        raise cannot_write(error.filename or folder, error) from error
    return folder


def _move(unpacked: Path, folder: Path) -> None:
    """Move the files of ``unpacked`` to ``folder``: at once where it is new, else one by one."""
    try:
        if not folder.exists():
            os.replace(unpacked, folder)
            return
        for path in sorted(path for path in unpacked.rglob("*") if path.is_file()):
            target = folder / path.relative_to(unpacked)
            if not target.parent.resolve().is_relative_to(folder.resolve()):
                raise KitError(f"{target.parent} leads out of {folder} through a link; remove the link")
            make_folder(target.parent)
            os.replace(path, target)
    except OSError as error:
        raise cannot_write(error.filename2 or folder, error) from error


def check(folder: Path, competition: str = FOLDER) -> None:
    """Make sure that the Sartorius competition's data is complete; other competitions are not checked.

    Raises:
        KitError: there is another number of images, or no train.csv.
    """
    if competition != FOLDER:
        return
    if not (folder / "train.csv").is_file():
        raise KitError(
            f"{folder} has no train.csv, though the whole archive was unpacked; see {_page(FOLDER)}/data"
        )
    for name, expected in _IMAGES.items():
        count = sum(1 for _ in (folder / name).glob("*.png"))
        if count != expected:
            advice = (
                "remove the ones that are not Kaggle's"
                if count > expected
                else "Kaggle may have changed its data"
            )
            raise KitError(f"{folder / name} holds {count} images, the competition has {expected}; {advice}")


def size_text(size: int) -> str:
    """A number of bytes with its unit.

    Example:
        >>> size_text(0), size_text(1234), size_text(2_500_000_000)
        ('0 B', '1.2 kB', '2.5 GB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size} B"
