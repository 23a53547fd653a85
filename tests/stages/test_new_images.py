"""Files, folders and patterns as images, and their ids."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from kitlib.data import dataset
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.stages import new_images

ALL = ReadingConfig()


def ids(*places, reading=ALL):
    found, unreadable = new_images.find(map(str, places), reading)
    assert unreadable == {}
    assert [image.frame.path for image in found] == [image.path for image in found]
    return [image.frame.id for image in found]


def test_files_folders_and_patterns_are_found(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ignored in (".hidden/a.png", "results/labels/a.png"):
        (scans / ignored).parent.mkdir(parents=True)
        (scans / ignored).write_bytes((scans / "a.png").read_bytes())
    (scans / "notes.txt").write_text("no image")
    expected = {
        ("scans",): ["a", "b", "plate_1__a"],
        ("scans/plate_1",): ["a"],
        ("scans/*.png", "scans/a.png"): ["a"],
        ("scans/b.tif", "scans"): ["b", "a", "plate_1__a"],
    }
    for places, names in expected.items():
        found, unreadable = new_images.find(places, ALL, out=Path("scans/results"))
        assert [image.frame.id for image in found] == names
        assert unreadable == {}
        assert {(image.frame.height, image.frame.width) for image in found} == {(64, 80)}


def test_ids_are_those_of_the_training_data(scans):
    for place in ("test/images/plate_1/a.png", "test/images/x/x.png", "train/plate_2/images/a.png"):
        (scans / "data" / place).parent.mkdir(parents=True, exist_ok=True)
        (scans / "data" / place).write_bytes((scans / "a.png").read_bytes())
    opened = dataset.open_folder(scans / "data")
    frames = [*opened.unlabelled, *opened.test]
    assert sorted(frame.id for frame in frames) == ["plate_1__a", "plate_2__a", "x"]
    assert sorted(ids(scans / "data")) == ["plate_1__a", "plate_2__a", "x"]


def test_images_whose_ids_would_be_the_same_are_told_apart(scans):
    (scans / "a.tif").write_bytes((scans / "b.tif").read_bytes())
    (scans / "raw").mkdir()
    (scans / "raw" / "b.png").write_bytes((scans / "a.png").read_bytes())
    assert ids(scans) == ["a.png", "a.tif", "b", "plate_1__a", "raw__b"]


@pytest.mark.parametrize(
    ("reading", "names"),
    [
        ({}, ["s_p0000_c0", "s_p0000_c1", "s_p0001_c0", "s_p0001_c1", "s_p0002_c0", "s_p0002_c1"]),
        ({"channel": 1}, ["s_p0000", "s_p0001", "s_p0002"]),
        ({"channel": "grey", "projection": "max"}, ["s"]),
        ({"plane": 2}, ["s_c0", "s_c1"]),
    ],
)
def test_planes_and_channels_of_a_file(tmp_path, reading, names):
    stack = np.zeros((3, 2, 5, 7), np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    found, _ = new_images.find([str(tmp_path)], ReadingConfig(**reading))
    assert [image.frame.id for image in found] == names
    assert {(image.frame.height, image.frame.width) for image in found} == {(5, 7)}
    # The one file, and each of its pictures once.
    assert {image.path for image in found} == {tmp_path / "s.tif"}
    assert len({repr(image.reading) for image in found}) == len(names)


def test_a_plane_that_is_not_there_is_said_of_its_file(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((3, 5, 7), np.uint8), photometric="minisblack")
    found, unreadable = new_images.find([str(tmp_path)], ReadingConfig(plane=3))
    assert found == []
    assert "choose by plane (0 to 2)" in unreadable[str(tmp_path / "s.tif")]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["gone"], "gone names no file or folder"),
        (["scans/*.jpg"], "names no file or folder"),
        (["scans/a.png", "scans/plate_1/a.png"], "would have the same results, 'a.png'"),
        (["empty"], "no image was found"),
    ],
)
def test_what_names_no_image_is_said(scans, tmp_path, monkeypatch, places, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError, match=message):
        new_images.find(places, ALL)
