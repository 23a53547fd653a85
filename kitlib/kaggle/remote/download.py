"""``kit download``: a competition's data, whole and unpacked, however often the line breaks."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import requests

from kitlib.data.competition import FOLDER
from kitlib.errors import KitError
from kitlib.files import make_folder
from kitlib.kaggle.remote import archive
from kitlib.kaggle.remote.answers import SITE, explain
from kitlib.kaggle.remote.client import Client, connect
from kitlib.kaggle.remote.source import RemoteFile, Source
from kitlib.kaggle.remote.transfer import discard, fetch, size_text

IMAGES = {"train": 606, "train_semi_supervised": 1972, "test": 3}
"""PNG images that the folders of the Sartorius competition hold."""
SPARE = 100_000_000  # bytes of the disk to leave free


def download(
    folder: Path | str,
    competition: str = FOLDER,
    keep_archive: bool = False,
    client: Client | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """The competition's data in ``folder``; of what is there already, only what is missing is fetched.

    Args:
        keep_archive: leave the archive in ``folder`` as well.
        client: left out: signed in with the user's credentials.
        say: prints a line of progress; a given ``client`` has its own.

    Raises:
        KitError: no credentials, rules not accepted, no network, no room, an archive that is damaged or would
            leave the folder, or data that is not what the competition's should be.
    """
    if not re.fullmatch(r"[\w-]+", competition):
        raise KitError(
            f"'{competition}' is not a competition's name; take the one in its address, such as {FOLDER}"
        )
    folder = make_folder(folder)
    client = client or connect(say)
    name, page = f"{competition}.zip", f"{SITE}/competitions/{competition}"
    doing = f"download the data of {competition}"

    def ask() -> requests.PreparedRequest:
        answer = client.api.competition_archive(competition)
        answer.close()
        return answer.request

    source = client.call(doing, Source, ask, client.retry, page=page)
    path = folder / name
    with _Guard(client, doing, page):
        unpacked = _from_afar(source, folder, name, client, keep_archive)
        if not unpacked:
            if not _same_size(path, source):
                fetch(source, path, client.retry, name)
            _unpack(path, folder, client.say)
    if not keep_archive:
        discard(path)
    check(folder, competition)
    return folder


class _Guard:
    """Turns what the network raises into a sentence."""

    def __init__(self, client: Client, doing: str, page: str) -> None:
        self.client, self.doing, self.page = client, doing, page

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, requests.RequestException):
            raise explain(error, self.doing, self.page, self.client.hide) from error


def _same_size(path: Path, source: Source) -> bool:
    return path.is_file() and source.size is not None and path.stat().st_size == source.size


def _from_afar(source: Source, folder: Path, name: str, client: Client, keep_archive: bool) -> bool:
    """Whether all is there without the archive: nothing was missing, or so little that it was read from afar.

    The archive's directory lies at its end and tells, before anything is downloaded, whether there is room.
    """
    part = folder / f".{name}.part"
    have = part.stat().st_size if part.is_file() else 0
    if not source.ranges:
        _make_sure_of_room(folder, (source.size or 0) - have, name)
        return False
    try:
        remote = zipfile.ZipFile(io.BufferedReader(RemoteFile(source, client.retry), 1 << 20))
    except zipfile.BadZipFile as error:
        raise KitError(f"{name} is not a whole zip at Kaggle ({error}); try again later") from error
    with remote:
        found = archive.entries(remote, folder, name)
        wanted = archive.missing(found)
        size = archive.size_of(wanted.values())
        packed = sum(info.compress_size for info in wanted.values())
        few = wanted != found and packed < source.size / 10 and not have
        if not wanted or (few and not keep_archive):
            if wanted:
                _make_sure_of_room(folder, size, name)
                client.say(f"fetching {len(wanted)} files that are missing of {len(found)}")
                archive.unpack(remote, wanted, name)
            client.say(f"{folder} holds all {len(found)} files")
            return not keep_archive or _same_size(folder / name, source)
        there = source.size if _same_size(folder / name, source) else have
        _make_sure_of_room(folder, source.size - there + size, name)
        files = f"{len(wanted)} of {len(found)} files to unpack ({size_text(size)})"
        client.say(f"{name}: {size_text(source.size)}, {files}")
    return False


def _unpack(path: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Unpack what is missing; a damaged archive is removed, so that the next run fetches it anew."""
    try:
        with zipfile.ZipFile(path) as local:
            found = archive.entries(local, folder, path.name)
            wanted = archive.missing(found)
            if wanted:
                _make_sure_of_room(folder, archive.size_of(wanted.values()), path.name)
            archive.unpack(local, wanted, path.name)
            say(f"{folder} holds all {len(found)} files, {len(wanted)} of them new")
    except (zipfile.BadZipFile, archive.Damaged) as error:
        path.unlink()
        raise KitError(
            f"{path} is no whole zip ({error}); it was removed, run again to download it anew"
        ) from error


def _make_sure_of_room(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise KitError(
            f"no room in {folder} for {name}: {size_text(needed)} are needed for the archive and its files, "
            f"{size_text(free)} are free; free some space, or choose another disk"
        )


def check(folder: Path, competition: str = FOLDER) -> None:
    """Make sure that the data is what it is known to be, where it is known.

    Raises:
        KitError: another number of images, or no train.csv.
    """
    if competition != FOLDER:
        return
    if not (folder / "train.csv").is_file():
        raise KitError(
            f"{folder} has no train.csv, though all was unpacked; see {SITE}/competitions/{FOLDER}/data"
        )
    for name, expected in IMAGES.items():
        count = sum(1 for _ in (folder / name).glob("*.png"))
        if count != expected:
            mend = (
                "take out the ones that are not Kaggle's"
                if count > expected
                else "Kaggle may have changed its data"
            )
            raise KitError(f"{folder / name} holds {count} images, the competition has {expected}; {mend}")
