"""kit download against a Kaggle on the loopback: broken lines, bad archives, full disks."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
from kaggle_server import Fault

from kitlib.errors import KitError
from kitlib.kaggle.remote import archive as archives
from kitlib.kaggle.remote.download import check, download
from kitlib.kaggle.remote.transfer import size_text

PIECES = 20 * 65536  # bytes; of each piece of 65,536 all or nothing is kept
SARTORIUS = "sartorius-cell-instance-segmentation"
FILES = {
    "train.csv": b"id,annotation\n" * 50,
    "train/a.png": random.Random(1).randbytes(300_000),
    "test/b.png": b"b",
}


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def offer(kaggle, data: bytes, competition: str = "cells", **options: object) -> bytes:
    """Put an archive on the server."""
    kaggle.archives[competition] = f"{competition}.zip"
    kaggle.put(f"{competition}.zip", data, **options)
    return data


def here(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def gets(kaggle, name: str = "cells.zip") -> list[str]:
    """The ranges that were asked of the storage."""
    return [headers.get("Range", "all") for asked, headers in kaggle.asked if asked == f"GET {name}"]


# --------------------------------------------------------------------------------------- it works


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ranges", [True, False])
def test_whole_and_unpacked(ranges, method, kaggle, tmp_path, kit):
    offer(kaggle, packed(FILES, method), ranges=ranges)
    done = kit("download", tmp_path / "data", "--competition", "cells")
    assert (done.returncode, done.stderr) == (0, "")
    assert here(tmp_path / "data") == FILES
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'data'}: complete"


def test_keep_archive(client, kaggle, tmp_path):
    data = offer(kaggle, packed(FILES))
    download(tmp_path, "cells", keep_archive=True, client=client)
    assert (tmp_path / "cells.zip").read_bytes() == data
    kaggle.asked.clear()
    download(tmp_path, "cells", keep_archive=True, client=client)
    assert (
        sum(asked == "all" for asked in gets(kaggle)) == 1
    )  # for its length; the archive is not fetched again


def test_second_run_downloads_nothing(client, kaggle, tmp_path, said):
    offer(kaggle, packed({**FILES, "big.bin": random.Random(2).randbytes(5_000_000)}))
    download(tmp_path, "cells", client=client)
    kaggle.asked.clear()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    download(tmp_path, "cells", client=client)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert said[-1] == f"{tmp_path} holds all 4 files"
    first, look, *rest = gets(kaggle)
    assert (first, look) == ("all", "bytes=0-0")  # of the first, nothing is read
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in rest]
    assert min(starts) > 5_000_000  # the directory at the archive's end, and no more


@pytest.mark.parametrize("harm", ["gone", "short", "other bytes"])
def test_second_run_mends_what_is_missing_without_the_archive(harm, client, kaggle, tmp_path):
    files = {**FILES, "big.bin": random.Random(2).randbytes(5_000_000)}
    offer(kaggle, packed(files))
    download(tmp_path, "cells", client=client)
    path = tmp_path / "train" / "a.png"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"x" * (100 if harm == "short" else 300_000))
    kaggle.asked.clear()
    download(tmp_path, "cells", client=client)
    assert path.read_bytes() == FILES["train/a.png"]
    spans = [asked.removeprefix("bytes=").split("-") for asked in gets(kaggle) if asked != "all"]
    assert sum(int(last) - int(first) + 1 for first, last in spans) < 3_000_000


def test_a_line_that_breaks_while_missing_files_are_read(client, kaggle, tmp_path):
    """It is not the disk that failed."""
    offer(kaggle, packed({**FILES, "big.bin": random.Random(2).randbytes(5_000_000)}))
    download(tmp_path, "cells", client=client)
    (tmp_path / "train" / "a.png").unlink()
    kaggle.fail("GET cells.zip", *[Fault()] * 4, Fault(cut=0, forever=True))
    with pytest.raises(
        KitError, match="cannot read the archive at Kaggle: the connection to Kaggle broke off"
    ):
        download(tmp_path, "cells", client=client)


def test_nothing_missing_needs_no_room(client, kaggle, tmp_path, monkeypatch):
    offer(kaggle, packed(FILES))
    download(tmp_path, "cells", client=client)
    monkeypatch.setattr("kitlib.kaggle.remote.download.SPARE", 10**18)
    download(tmp_path, "cells", client=client)


@pytest.mark.parametrize("name", ["../cells", "/cells", "a/b", ""])
def test_a_name_that_is_none(name, tmp_path, bare, kit):
    done = kit("download", tmp_path / "data", "--competition", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: '{name}' is not a competition's name")


def test_an_archive_that_lies_there_is_used(client, kaggle, tmp_path, said):
    """As `kaggle competitions download` leaves it."""
    (tmp_path / "cells.zip").write_bytes(offer(kaggle, packed(FILES)))
    download(tmp_path, "cells", client=client)
    assert here(tmp_path)["train/a.png"] == FILES["train/a.png"]
    assert not any("cells.zip:" in line and " of " in line and "files" not in line for line in said)
    assert not (tmp_path / "cells.zip").exists()


# ---------------------------------------------------------------------------------- broken lines


def big() -> dict[str, bytes]:
    return {f"train/{number}.png": random.Random(number).randbytes(400_000) for number in range(8)}


def test_a_cut_connection_is_gone_on_with(client, kaggle, tmp_path, said):
    data = offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", Fault(cut=PIECES), Fault(cut=PIECES))
    download(tmp_path, "cells", client=client)
    assert here(tmp_path) == here_of(data)
    assert f"going on with cells.zip after 2.6 MB of {size_text(len(data))}" in said
    assert f"bytes={2 * PIECES}-" in gets(kaggle)


def here_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_many_cuts_are_borne_as_long_as_there_is_progress(client, kaggle, tmp_path):
    data = offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", *[Fault(cut=200_000)] * 12)
    download(tmp_path, "cells", client=client)
    assert here(tmp_path) == here_of(data)


@pytest.fixture
def half(client, kaggle, tmp_path):
    """A folder with the first 1.3 MB of the archive, from a run that gave up."""
    data = offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", Fault(cut=PIECES), Fault(503, forever=True))
    with pytest.raises(
        KitError, match=r"cannot download cells.zip: Kaggle answers 503; run again to go on after 1.3 MB"
    ):
        download(tmp_path / "data", "cells", client=client)
    kaggle.faults.clear()
    kaggle.asked.clear()
    assert (tmp_path / "data" / ".cells.zip.part").read_bytes() == data[:PIECES]
    return data


def test_a_half_file_is_gone_on_with_by_the_next_run(half, client, kaggle, tmp_path):
    download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == here_of(half)
    assert f"bytes={PIECES}-" in gets(kaggle)


def test_a_half_of_another_version_is_replaced(half, client, kaggle, tmp_path):
    new = offer(kaggle, packed({**big(), "train/1.png": b"1" * 400_000}), tag='"v2"')
    assert len(new) == len(half)
    download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == here_of(new)
    assert f"bytes={PIECES}-" not in gets(kaggle)


@pytest.mark.parametrize("harm", ["longer", "no note", "broken note", "link"])
def test_a_half_that_cannot_be_trusted_is_replaced(harm, half, client, kaggle, tmp_path):
    part, note = tmp_path / "data" / ".cells.zip.part", tmp_path / "data" / ".cells.zip.part.json"
    if harm == "longer":
        part.write_bytes(half + b"more")
    elif harm == "no note":
        note.unlink()
    elif harm == "broken note":
        note.write_text('{"tag"')
    else:
        part.rename(tmp_path / "elsewhere")
        part.symlink_to(tmp_path / "elsewhere")
    download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == here_of(half)


@pytest.mark.parametrize("options", [{"ranges": False}, {"tag": None}])
def test_a_server_that_cannot_go_on(options, client, kaggle, tmp_path):
    """Without ranges a cut download begins anew; without a tag only the next run does."""
    data = offer(kaggle, packed(big()), **options)
    kaggle.fail(
        "GET cells.zip", Fault(), *([Fault(), Fault()] if "tag" in options else []), Fault(cut=1_000_000)
    )
    download(tmp_path, "cells", client=client)
    assert here(tmp_path) == here_of(data)


def test_an_address_that_has_run_out_is_asked_for_again(client, kaggle, tmp_path):
    """The storage's signatures last for an hour or so; a download of several goes on with a new one."""
    data = offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", Fault(cut=PIECES), Fault(403))
    download(tmp_path, "cells", client=client)
    assert here(tmp_path) == here_of(data)
    assert kaggle.names().count("DownloadDataFiles") == 2


def test_a_line_that_breaks_for_good(kaggle, tmp_path, kit):
    offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", Fault(cut=PIECES), Fault(cut=0, forever=True))
    done = kit("download", tmp_path / "data", "--competition", "cells")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: cannot download cells.zip: the connection to Kaggle broke off; "
        "run again to go on after 1.3 MB"
    ]


def test_a_process_that_is_killed_leaves_a_half_that_serves(kaggle, tmp_path, kit, killed):
    data = offer(kaggle, packed(big()))
    kaggle.fail("BODY cells.zip", Fault(cut=PIECES, stall=True))
    part = tmp_path / "data" / ".cells.zip.part"
    killed("download", tmp_path / "data", "--competition", "cells", path=part, size=PIECES)
    done = kit("download", tmp_path / "data", "--competition", "cells")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"going on with cells.zip after 1.3 MB of {size_text(len(data))}" in done.stdout
    assert here(tmp_path / "data") == here_of(data)


# ---------------------------------------------------------------------------------- bad archives


def link(name: str, target: str) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, target)
        archive.writestr(f"{name}/out.txt", "out")
    return buffer.getvalue()


def device(name: str) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFIFO | 0o600) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed({"a.txt": b"a", "../out.txt": b"out"}), "leaves the folder"),
        (packed({"a.txt": b"a", "train/../../out.txt": b"out"}), "leaves the folder"),
        (packed({"a.txt": b"a", "/out.txt": b"out"}), "leaves the folder"),
        (packed({"a.txt": b"a", "..\\out.txt": b"out"}), "leaves the folder"),
        (packed({"a.txt": b"a", "C:/out.txt": b"out"}), "leaves the folder"),
        (link("train", "/tmp"), "which is a link"),
        (device("train/pipe"), "which is a link"),
        (packed({"a/b.txt": b"a", "a//b.txt": b"b"}), "twice"),
    ],
)
def test_archives_that_would_leave_the_folder(data, words, ranges, client, kaggle, tmp_path):
    """Nothing at all is unpacked."""
    offer(kaggle, data, ranges=ranges)
    folder = tmp_path / "deep" / "data"
    with pytest.raises(KitError, match=words):
        download(folder, "cells", client=client)
    assert [name for name in here(tmp_path / "deep") if not name.endswith("cells.zip")] == []


def test_a_link_on_the_way_is_not_followed(client, kaggle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    offer(kaggle, packed(FILES))
    with pytest.raises(
        KitError, match=r"would write 'train/a.png' through a link out of .*; remove the link"
    ):
        download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "elsewhere") == {}


def test_a_link_in_the_place_of_a_file_is_replaced(client, kaggle, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").symlink_to(tmp_path / "mine.txt")
    offer(kaggle, packed(FILES))
    download(tmp_path / "data", "cells", client=client)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert here(tmp_path / "data") == FILES


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "data", [packed(FILES)[:-5000], b"", b"<html>not a zip</html>" * 100], ids=["cut", "empty", "page"]
)
def test_an_archive_that_is_not_whole_at_kaggle(data, ranges, client, kaggle, tmp_path):
    offer(kaggle, data, ranges=ranges)
    with pytest.raises(KitError, match="whole zip"):
        download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == {}


def test_a_damaged_file_in_the_archive(client, kaggle, tmp_path):
    """Those before it stay; the archive is removed, so that the next run gets it anew."""
    data = bytearray(packed(FILES))
    data[data.index(FILES["train/a.png"][:100]) + 5] ^= 255
    offer(kaggle, bytes(data))
    with pytest.raises(KitError, match=r"damaged at 'train/a.png' .*Bad CRC.*; it was removed, run again"):
        download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == {"train.csv": FILES["train.csv"]}
    offer(kaggle, packed(FILES), tag='"v2"')
    download(tmp_path / "data", "cells", client=client)
    assert here(tmp_path / "data") == FILES


# ------------------------------------------------------------------------------------- full disks


def huge() -> bytes:
    """An archive whose directory declares a file of a petabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train/a.png", b"a")
        archive.getinfo("train/a.png").file_size = 10**15
    return buffer.getvalue()


@pytest.mark.parametrize("ranges", [True, False])
def test_no_room_for_what_the_archive_declares(ranges, client, kaggle, tmp_path):
    """Where the server knows ranges, it is seen before the archive is downloaded."""
    offer(kaggle, huge(), ranges=ranges)
    with pytest.raises(KitError, match=r"no room in .* for cells.zip: 1000000.0 GB are needed .* are free"):
        download(tmp_path / "data", "cells", client=client)
    assert set(here(tmp_path / "data")) <= ({"cells.zip"} if not ranges else set())


def test_the_disk_runs_full_on_the_way(client, kaggle, bare, monkeypatch):
    """A real one, of 200 kB."""
    small = bare / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setattr("kitlib.kaggle.remote.download.SPARE", -(10**9))  # or it would be seen beforehand
        offer(kaggle, packed(FILES))
        with pytest.raises(KitError, match="the disk is full; free some space and run again"):
            download(small, "cells", client=client)
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ----------------------------------------------------------------------------------------- counts


def competition(train: int = 606, semi: int = 1972, test: int = 3, table: bool = True) -> dict[str, bytes]:
    counts = {"train": train, "train_semi_supervised": semi, "test": test}
    files = {
        f"{name}/{number}.png": b"%d" % number for name, count in counts.items() for number in range(count)
    }
    return {**files, "LIVECell_dataset_2021/images/x.tif": b"x", **({"train.csv": b"id\n"} if table else {})}


def test_the_whole_competition(kaggle, tmp_path, kit):
    offer(kaggle, packed(competition()), SARTORIUS)
    done = kit("download", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path / 'data'} holds all 2583 files, 2583 of them new" in done.stdout
    check(tmp_path / "data")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": 605}, "train holds 605 images, the competition has 606; Kaggle may have changed its data"),
        ({"semi": 1973}, "train_semi_supervised holds 1973 images, the competition has 1972; take out"),
        ({"test": 0}, "test holds 0 images, the competition has 3"),
        ({"table": False}, "has no train.csv, though all was unpacked"),
    ],
)
def test_wrong_counts(counts, words, client, kaggle, tmp_path):
    offer(kaggle, packed(competition(**counts)), SARTORIUS)
    with pytest.raises(KitError, match=words):
        download(tmp_path / "data", client=client)


def test_files_of_ones_own_among_the_images(client, kaggle, tmp_path):
    offer(kaggle, packed(competition()), SARTORIUS)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(KitError, match="holds 607 images, the competition has 606; take out the ones"):
        download(tmp_path / "data", client=client)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(401, "Unauthenticated"), "does not accept your credentials"),
        (Fault(403, "You must accept this competition's rules"), f"/competitions/{SARTORIUS}/rules"),
        (Fault(404, "Not found"), "check the name"),
        (Fault(500, forever=True), "Kaggle is in trouble (500); try again later"),
    ],
)
def test_the_command_says_what_to_do(fault, words, kaggle, tmp_path, kit):
    kaggle.fail("DownloadDataFiles", fault)
    done = kit("download", tmp_path / "data")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot download the data of {SARTORIUS}: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_trouble_that_stays_is_not_asked_for_ever(client, kaggle, tmp_path):
    kaggle.fail("DownloadDataFiles", Fault(503, forever=True))
    with pytest.raises(KitError, match="Kaggle is in trouble"):
        download(tmp_path, "cells", client=client)
    assert kaggle.names().count("DownloadDataFiles") == 6


def test_trouble_of_the_storage_that_passes(client, kaggle, tmp_path):
    offer(kaggle, packed(FILES))
    kaggle.fail("GET cells.zip", Fault(), Fault(503), Fault(cut=0), Fault(503))
    kaggle.fail("BODY cells.zip", Fault(503), Fault(503))
    download(tmp_path, "cells", client=client)
    assert here(tmp_path)["train.csv"] == FILES["train.csv"]


def test_the_command_waits_when_asked_to(kaggle, tmp_path, kit):
    offer(kaggle, packed(FILES))
    kaggle.fail("DownloadDataFiles", Fault(429, after=0.3), Fault(503))
    done = kit("download", tmp_path / "data", "--competition", "cells")
    assert done.returncode == 0
    assert "Kaggle asks for fewer requests (429); trying again in 0.3 s" in done.stdout
    assert here(tmp_path / "data") == FILES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(client, kaggle, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(KitError, match="not writable"):
        download(tmp_path / "data", "cells", client=client)


def test_missing_is_by_length_and_checksum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with zipfile.ZipFile(io.BytesIO(packed({"a": b"abc", "b": b"abc"}))) as archive:
        found = archives.entries(archive, tmp_path, "x.zip")
        assert {path.name for path in archives.missing(found)} == {"b"}
        shutil.copy(tmp_path / "a", tmp_path / "b")
        assert archives.missing(found) == {}
        (tmp_path / "b").write_bytes(b"abd")
        assert {path.name for path in archives.missing(found)} == {"b"}
