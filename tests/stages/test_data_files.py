"""Folders of data told apart by the names and contents of their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kitlib.stages import data_files
from kitlib.stages.data_files import CACHE


def fingerprint(data: Path, out: Path) -> str:
    """That of a folder, remembered as a run remembers it."""
    found = data_files.read(data, out)
    found.remember(out)
    return found.fingerprint


@pytest.fixture
def differs(tmp_path: Path) -> Callable[[], bool]:
    """Whether the folder ``tmp_path / "data"`` now is another than at every call before."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    seen = [fingerprint(data, out)]

    def now() -> bool:
        seen.append(fingerprint(data, out))
        return len(set(seen)) == len(seen) and fingerprint(data, out) == seen[-1]

    return now


def test_names_sizes_and_contents_count(tmp_path: Path, differs: Callable[[], bool]) -> None:
    image = tmp_path / "data" / "a.png"
    image.write_text("12")
    assert differs()
    image.write_text("13")
    os.utime(image, ns=(0, 5))
    assert differs()
    image.write_text("133")
    os.utime(image, ns=(0, 5))
    assert differs()
    image = image.rename(tmp_path / "data" / "b.png")
    assert differs()
    (tmp_path / "data" / "train").mkdir()
    image.rename(tmp_path / "data" / "train" / "b.png")
    assert differs()


def test_a_copy_of_other_times_is_the_same(tmp_path: Path) -> None:
    """A data set mounted anew or copied must not have its trainings moved aside."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    (data / "a.png").write_text("12")
    first = fingerprint(data, tmp_path / "out")
    shutil.copytree(data, copy)
    os.utime(copy / "a.png", ns=(0, 5))
    assert fingerprint(copy, tmp_path / "out") == first
    assert fingerprint(copy, tmp_path / "other") == first


def test_contents_are_read_once(tmp_path: Path) -> None:
    """A change that neither size nor time tells is not seen, until the cache is removed."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for text in ("12", "13"):
        (data / "a.png").write_text(text)
        os.utime(data / "a.png", ns=(0, 5))
        if text == "12":
            first = fingerprint(data, out)
    assert fingerprint(data, out) == first
    shutil.rmtree(out / CACHE)
    assert fingerprint(data, out) != first


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a.png": 3}', '{"a.png": [1, 2]}'])
def test_a_damaged_cache_does_no_harm(tmp_path: Path, content: str) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "a.png").write_text("12")
    first = fingerprint(data, out)
    (out / CACHE / "data_files.json").write_text(content)
    assert fingerprint(data, out) == first


def test_results_in_the_data_s_folder_do_not_count(tmp_path: Path, differs: Callable[[], bool]) -> None:
    data = tmp_path / "data"
    (data / "a.png").write_text("1")
    first = fingerprint(data, data / "out")
    (data / "out" / "03_train").mkdir(parents=True)
    (data / "out" / "03_train" / "stage.json").write_text("{}")
    assert fingerprint(data, data / "out") == first


def test_of_a_large_file_the_time_counts(tmp_path: Path, differs: Callable[[], bool]) -> None:
    archive = tmp_path / "data" / "all.zip"
    with archive.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    assert differs()
    os.utime(archive, ns=(0, 5))
    assert differs()


def test_names_that_are_no_utf8_count(tmp_path: Path, differs: Callable[[], bool]) -> None:
    path = tmp_path / "data" / os.fsdecode(b"caf\xe9.png")
    path.write_text("1")
    assert differs()
    path.rename(tmp_path / "data" / os.fsdecode(b"caf\xe8.png"))
    assert differs()


def test_a_link_that_leads_nowhere_does_no_harm(tmp_path: Path, differs: Callable[[], bool]) -> None:
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "gone.png")
    assert not differs()
