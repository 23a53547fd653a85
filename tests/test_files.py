"""Files that are whole or not there: under errors, full disks, closed folders and writers side by side."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest

from kitlib import files
from kitlib.errors import KitError


def test_a_new_file_and_its_folders_appear_and_nothing_else(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a" / "b" / "c.txt", "neurite\n")
    assert path.read_text() == "neurite\n"
    assert [p.name for p in path.parent.iterdir()] == ["c.txt"]


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from kitlib import files
with files.atomic(sys.argv[1]) as temporary:
    temporary.write_text("half of the n")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_unfinished_can_be_removed(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "figures" / "a.txt", "old")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (left,) = set(path.parent.iterdir()) - {path}
    assert left.read_text() == "half of the n"
    files.remove_unfinished(tmp_path)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "old"


def test_until_the_end_the_old_file_is_read(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a.csv", "old")
    with files.atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".csv")  # some writers go by the suffix
    assert path.read_text() == "new"


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = files.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_of_writers_side_by_side_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = [letter * 200_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: files.write_text(path, text), texts * 3))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def run_child(code: str, *arguments: Path, **options) -> str:
    """The sentence of the KitError that a process of its own ends with."""
    script = f"import sys\nfrom kitlib import files\nfrom kitlib.errors import KitError\ntry:\n    {code}\n"
    script += "except KitError as error:\n    print(error)\n"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    return done.stdout


def test_a_file_that_may_not_grow_keeps_the_old_one(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a quota: writing stops in the middle."""
    path = files.write_text(tmp_path / "a.txt", "old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "    files.write_text(sys.argv[1], 'x' * 100_000)"
    said = run_child(code, path, preexec_fn=limit)
    assert said.startswith(f"cannot write {path}: File too large; choose another folder")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if os.geteuid() == 0
        else None
    )
    if mount is None or mount.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    path = files.write_text(small_disk / "a.txt", "old")
    with pytest.raises(KitError, match=r"a\.txt: the disk is full; free some space and run again"):
        files.write_text(path, "x" * 1_000_000)
    with pytest.raises(KitError, match=r"a\.txt: the disk is full"):
        files.write_csv(path, pd.DataFrame({"x": range(200_000)}))
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]
    files.write_text(path, "new")  # nothing was left to fill it
    assert path.read_text() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "shut" / "a.txt", "old")
    path.parent.chmod(0o500)
    try:
        with pytest.raises(KitError, match="the folder is not writable; change its permissions or choose"):
            files.write_text(path, "new")
        with pytest.raises(KitError, match="not writable"):
            files.make_folder(path.parent / "new")
    finally:
        path.parent.chmod(0o700)
    assert path.read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a.txt", "old")
    tmp_path.chmod(0o755)
    code = "import os, tempfile; os.seteuid(65534)\n    files.write_text(sys.argv[1], 'new')"
    assert "the folder is not writable; change its permissions" in run_child(code, path)
    code = "import os; os.seteuid(65534)\n    files.make_folder(sys.argv[1] + '/new')"
    assert "not writable" in run_child(code, tmp_path)
    assert path.read_text() == "old"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(KitError, match=r"cannot write .*a: .*choose another folder"):
        files.write_text(tmp_path / "a" / "b.txt", "x")


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"größe": [1, 2.5, None, True], "text": "½ \n \"'"}
    assert files.read_json(files.write_json(tmp_path / "a.json", value)) == value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": [1, 2', "is not whole JSON .* cut short: copy or download it again"),
        (b"", "is not whole JSON"),
        (b'{"a": "\xff"}', "is not whole JSON"),  # not UTF-8
        (None, "does not exist"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError, match=rf"a\.json {problem}"):
        files.read_json(path)


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="cannot read"):
        files.read_json(tmp_path)


def test_a_table_is_written_without_its_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["0030e5", "a,b"], "predicted": ["1 2", ""]})
    path = files.write_csv(tmp_path / "a.csv", table)
    assert path.read_text() == 'id,predicted\n0030e5,1 2\n"a,b",\n'


@pytest.mark.parametrize(
    ("path", "inside"),
    [("a", True), ("a/b..c", True), ("./a", True), ("..", False), ("a/../../b", False), ("/a", False)],
)
def test_paths_that_leave_their_folder(path: str, inside: bool) -> None:
    assert files.stays_inside(PurePosixPath(path)) is inside


def test_fingerprints_tell_texts_files_and_their_borders_apart(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a", "content")
    prints = {
        files.fingerprint("ab", "c"),
        files.fingerprint("a", "bc"),
        files.fingerprint("abc"),
        files.fingerprint("abc", ""),
        files.fingerprint(path),
        files.fingerprint(str(path)),
    }
    assert len(prints) == 6
    assert files.fingerprint(path) == files.fingerprint("content")
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)
