"""kit download against a Kaggle on the loopback: broken connections, bad archives, full disks."""

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
from kitlib.kaggle.remote.download import check, download, size_text

SARTORIUS = "sartorius-cell-instance-segmentation"
FILES = {
    "train.csv": b"id,annotation\n" * 50,
    "train/a.png": random.Random(1).randbytes(300_000),
    "test/b.png": b"b",
    "empty.txt": b"",
}

BIG = {**FILES, "big.bin": random.Random(3).randbytes(1_500_000)}  # the client writes pieces of 1 MiB


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def offer(kaggle, files: dict[str, bytes], competition: str = "cells", data: bytes | None = None) -> bytes:
    """Put a competition's files on the server, as ``data`` where the archive is to be another."""
    kaggle.listed[competition] = {name: len(content) for name, content in files.items()}
    kaggle.files[f"{competition}.zip"] = packed(files) if data is None else data
    return kaggle.files[f"{competition}.zip"]


def here(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def gets(kaggle) -> list[str]:
    """The ranges of the archive that were asked of the storage."""
    return [span for name, span in kaggle.asked if name == "GET cells.zip"]


# --------------------------------------------------------------------------------------- it works


def test_whole_and_unpacked(kaggle, tmp_path, kit):
    offer(kaggle, FILES, data=packed(FILES, zipfile.ZIP_DEFLATED))
    done = kit("download", tmp_path / "new" / "data", "--competition", "cells")
    assert (done.returncode, done.stderr) == (0, "")
    assert here(tmp_path / "new") == {f"data/{name}": data for name, data in FILES.items()}
    assert done.stdout.splitlines() == [
        "4 of 4 files are missing (300.7 kB in all)",
        f"{tmp_path / 'new' / 'data'}: complete",
    ]


def test_second_run_downloads_nothing(kaggle, tmp_path, said, monkeypatch):
    offer(kaggle, FILES)
    download(tmp_path / "data", "cells")
    kaggle.asked.clear()
    monkeypatch.setattr("kitlib.kaggle.remote.download.RESERVE", 10**18)  # it needs no room, either
    download(tmp_path / "data", "cells", say=said.append)
    assert gets(kaggle) == []
    assert said == [f"{tmp_path / 'data'} holds all 4 files"]


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_second_run_restores_what_is_missing(harm, kaggle, tmp_path):
    """Files of the user's own stay."""
    offer(kaggle, FILES)
    download(tmp_path, "cells")
    (tmp_path / "train" / "mine.txt").write_bytes(b"mine")
    path = tmp_path / "train" / "a.png"
    path.unlink() if harm == "gone" else path.write_bytes(b"x")
    download(tmp_path, "cells")
    assert here(tmp_path) == {**FILES, "train/mine.txt": b"mine"}


def test_keep_archive(kaggle, tmp_path):
    """The one that is kept serves a later run."""
    data = offer(kaggle, FILES)
    download(tmp_path / "data", "cells", keep_archive=True)
    assert here(tmp_path / "data") == {**FILES, "cells.zip": data}
    (tmp_path / "data" / "train.csv").unlink()
    kaggle.fail("GET cells.zip", Fault(cut=0))  # its headers are asked for, and nothing of it is read
    download(tmp_path / "data", "cells", keep_archive=True)
    assert here(tmp_path / "data") == {**FILES, "cells.zip": data}
    assert set(gets(kaggle)) == {"all"}


@pytest.mark.parametrize("name", ["../cells", "/cells", "a/b", ""])
def test_a_name_that_is_none(name, tmp_path):
    with pytest.raises(KitError, match=f"'{name}' is not a competition's name"):
        download(tmp_path / "data", name)


# ---------------------------------------------------------------------------- broken connections


def test_a_cut_connection_is_resumed(kaggle, tmp_path, impatient):
    offer(kaggle, BIG)
    kaggle.fail("GET cells.zip", Fault(cut=1_500_000), Fault(cut=100_000))
    download(tmp_path / "data", "cells")
    assert here(tmp_path / "data") == BIG
    assert gets(kaggle) == ["all", *["bytes=1048576-"] * 2]


def test_a_connection_that_breaks_for_good(kaggle, tmp_path, impatient):
    """There is no folder until all is there; the next run resumes the part that came."""
    offer(kaggle, BIG)
    kaggle.fail("GET cells.zip", Fault(cut=1_500_000), Fault(cut=0, forever=True))
    with pytest.raises(KitError, match="cannot download the data of cells: the connection to Kaggle failed"):
        download(tmp_path / "data", "cells")
    assert not (tmp_path / "data").exists()
    kaggle.faults.clear()
    kaggle.asked.clear()
    download(tmp_path / "data", "cells")
    assert here(tmp_path) == {f"data/{name}": data for name, data in BIG.items()}
    assert gets(kaggle) == ["all", "bytes=1048576-"]  # of the first, only the headers are read


def test_the_page_of_an_error_is_not_taken_for_the_archive(kaggle, tmp_path, impatient):
    """The client writes it in the archive's place, and would add the rest of the archive to it later."""
    offer(kaggle, FILES)
    kaggle.fail("GET cells.zip", Fault(cut=100_000), *[Fault(503)] * 2)
    with pytest.raises(KitError, match="Downloaded file size"):
        download(tmp_path / "data", "cells")
    download(tmp_path / "data", "cells")
    assert here(tmp_path / "data") == FILES


def test_a_process_that_is_killed(kaggle, tmp_path, killed):
    """It leaves no folder, and the next run ends well."""
    offer(kaggle, BIG)
    kaggle.fail("GET cells.zip", Fault(cut=1_500_000, stall=True))
    part = tmp_path / ".data.download" / "cells.zip"
    killed("download", tmp_path / "data", "--competition", "cells", path=part, size=1_000_000)
    assert not (tmp_path / "data").exists()
    kaggle.asked.clear()
    download(tmp_path / "data", "cells")
    assert here(tmp_path / "data") == BIG
    assert gets(kaggle) == ["all", "bytes=1048576-"]
    assert not part.parent.exists()


# ---------------------------------------------------------------------------------- bad archives


def special(name: str, kind: int, content: str) -> bytes:
    """An archive with a link or a pipe."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        packed({"a.txt": b"a", "../out.txt": b"out"}),
        packed({"a.txt": b"a", "train/../../out.txt": b"out"}),
        packed({"a.txt": b"a", "/out.txt": b"out"}),
        special("train", stat.S_IFLNK, "/tmp"),
        special("train/pipe", stat.S_IFIFO, ""),
    ],
    ids=["up", "up inside", "absolute", "link", "pipe"],
)
@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_written_out_of_the_folder(there, data, kaggle, tmp_path):
    offer(kaggle, {"a.txt": b"a"}, data=data)
    folder = tmp_path / "deep" / "data"
    if there:
        folder.mkdir(parents=True)
    download(folder, "cells")
    written = [path for path in tmp_path.joinpath("deep").rglob("*") if path != folder]
    assert all(path.is_relative_to(folder) and not path.is_symlink() for path in written)
    assert all(path.is_dir() or path.is_file() for path in written)
    assert not Path("/out.txt").exists()


def test_a_link_on_the_way_is_not_followed(kaggle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    offer(kaggle, FILES)
    with pytest.raises(KitError, match=r"data/train leads out of .* through a link; remove the link"):
        download(tmp_path / "data", "cells")
    assert here(tmp_path / "elsewhere") == {}


def test_a_link_in_the_place_of_a_file_is_replaced(kaggle, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").symlink_to(tmp_path / "mine.txt")
    offer(kaggle, FILES)
    download(tmp_path / "data", "cells")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert here(tmp_path / "data") == FILES


def damaged() -> bytes:
    data = bytearray(packed(FILES))
    data[data.index(FILES["train/a.png"][:100]) + 5] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [packed(FILES)[:-5000], b"", b"<html>not a zip</html>", damaged()],
    ids=["cut", "no", "page", "bad"],
)
def test_an_archive_that_is_not_whole(data, kaggle, tmp_path):
    """It is removed, so that the next run gets it anew."""
    offer(kaggle, FILES, data=data)
    with pytest.raises(KitError, match=r"cells.zip is not a whole zip .*; it was removed, run again"):
        download(tmp_path / "data", "cells")
    assert not (tmp_path / "data").exists()
    offer(kaggle, FILES)
    download(tmp_path / "data", "cells")
    assert here(tmp_path) == {f"data/{name}": content for name, content in FILES.items()}


# ------------------------------------------------------------------------------------- full disks


def test_no_room_for_what_kaggle_lists(kaggle, tmp_path):
    """It is seen before anything is downloaded."""
    offer(kaggle, FILES)
    kaggle.listed["cells"]["train/a.png"] = 10**15
    with pytest.raises(KitError, match=r"no room in .*: the archive and its files need 2000000.0 GB, "):
        download(tmp_path / "data", "cells")
    assert gets(kaggle) == []


@pytest.mark.parametrize("kilobytes", [200, 400], ids=["while downloading", "while unpacking"])
def test_the_disk_runs_full_on_the_way(kilobytes, kaggle, bare, monkeypatch, impatient):
    """A real one."""
    small = bare / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setattr(
            "kitlib.kaggle.remote.download.RESERVE", -(10**9)
        )  # or it would be seen beforehand
        offer(kaggle, FILES)
        with pytest.raises(KitError, match="the disk is full; free some space and run again"):
            download(small / "data", "cells")
        assert not (small / "data").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(kaggle, tmp_path):
    offer(kaggle, FILES)
    tmp_path.chmod(0o500)
    with pytest.raises(KitError, match="not writable"):
        download(tmp_path / "data", "cells")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(KitError, match="data is a file; choose another folder"):
        download(tmp_path / "data", "cells")


# ----------------------------------------------------------------------------------------- counts


def competition(train: int = 606, semi: int = 1972, test: int = 3, table: bool = True) -> dict[str, bytes]:
    counts = {"train": train, "train_semi_supervised": semi, "test": test}
    files = {
        f"{name}/{number}.png": b"%d" % number for name, count in counts.items() for number in range(count)
    }
    return {**files, **({"train.csv": b"id\n"} if table else {})}


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": 605}, "train holds 605 images, the competition has 606; Kaggle may have changed its data"),
        ({"semi": 1973}, "train_semi_supervised holds 1973 images, the competition has 1972; remove"),
        ({"test": 0}, "test holds 0 images, the competition has 3"),
        ({"table": False}, "has no train.csv, though the whole archive was unpacked"),
    ],
)
def test_wrong_counts(counts, words, tmp_path):
    with zipfile.ZipFile(io.BytesIO(packed(competition(**counts)))) as archive:
        archive.extractall(tmp_path)
    with pytest.raises(KitError, match=words):
        check(tmp_path)


def test_files_of_ones_own_among_the_images(kaggle, tmp_path):
    offer(kaggle, competition(), SARTORIUS)
    kaggle.listed[SARTORIUS] = {"train.csv": 3}
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(KitError, match="holds 607 images, the competition has 606; remove the ones"):
        download(tmp_path)
    (tmp_path / "train" / "mine.png").unlink()
    download(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(403, "You must accept this competition's rules"), f"/competitions/{SARTORIUS}/rules"),
        (Fault(500), "Kaggle is in trouble (500); try again later"),
    ],
)
def test_failures_say_what_to_do(fault, words, kaggle, tmp_path):
    offer(kaggle, FILES, SARTORIUS)
    kaggle.fail("DownloadDataFiles", fault)
    with pytest.raises(KitError) as caught:
        download(tmp_path / "data")
    assert str(caught.value).startswith(f"cannot download the data of {SARTORIUS}: ")
    assert words in str(caught.value)


def test_sizes_as_people_say_them():
    assert size_text(1_234_567) == "1.2 MB"
