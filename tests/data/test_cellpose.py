"""Cellpose's _seg.npy files: what they hold, and what they are refused for."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest

from kitlib.data.cellpose import read_seg
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError

MASKS = np.array([[0, 1, 1], [2, 0, 3]], np.uint16)
# What Cellpose 3 and 4 write.
CONTENT = {
    "outlines": MASKS * 0,
    "masks": MASKS,
    "chan_choose": [0, 0],
    "ismanual": np.zeros(3, bool),
    "filename": "a.png",
    "flows": [np.zeros((1, 2, 3, 3), np.uint8), None, [], np.zeros((2, 1, 2, 3), np.float32)],
    "diameter": np.float64(30.5),
    "manual_changes": [],
    "model_path": 0,
    "normalize_params": {"lowhigh": None, "percentile": (1.0, 99.0)},
}


@pytest.fixture
def save(tmp_path):
    """``save(content)``: a _seg.npy file of it."""

    def make(content):
        np.save(tmp_path / "a_seg.npy", content, allow_pickle=True)
        return tmp_path / "a_seg.npy"

    return make


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.int64, ">u2", np.uint8])
def test_masks(save, dtype):
    labels = read_seg(save({**CONTENT, "masks": MASKS.astype(dtype)}))
    assert np.array_equal(labels, MASKS)


def test_masks_by_columns(save):
    assert np.array_equal(read_seg(save({"masks": np.asfortranarray(MASKS)})), MASKS)


def test_masks_of_planes(save):
    path = save({"masks": np.stack([MASKS, MASKS + 1])})
    with pytest.raises(KitError, match="holds masks of 2 planes; choose one with plane"):
        read_seg(path)
    assert np.array_equal(read_seg(path, ReadingConfig(plane=1)), MASKS + 1)
    assert np.array_equal(read_seg(save({"masks": MASKS[None]})), MASKS)


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("trap", "name"),
    [
        (Runs(os.system, "echo trapped"), r"(posix|nt)\.system"),
        (Runs(eval, "1"), r"builtins\.eval"),
        (Runs(subprocess.Popen, ["true"]), r"subprocess\.Popen"),
        (Runs(getattr, "", "join"), r"builtins\.getattr"),
        (Runs(np.load, "x.npy"), r"numpy\.load"),
    ],
)
def test_a_file_that_would_run_code_is_refused(save, trap, name, capfd):
    for content in ({"masks": MASKS, "x": trap}, {"masks": trap}, trap):
        with pytest.raises(KitError, match=rf"a_seg\.npy is refused: loading it would run {name}; save the"):
            read_seg(save(np.array(content, object)))
    assert "trapped" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (MASKS, "it holds no dictionary"),
        (np.array([{}, {}]), "it holds several objects"),
        ({"outlines": MASKS}, "holds no array of masks"),
        ({"masks": [[0, 1]]}, "holds no array of masks"),
        ({"masks": MASKS * 0.5}, "holds fractions"),
        ({"masks": MASKS.astype(object)}, "holds no numbers"),
        ({"masks": np.zeros((0, 0), int)}, "holds no numbers"),
        ({"masks": MASKS.view("V2")}, "numpy arrays of type"),
        ([1], "it holds no dictionary"),
    ],
)
def test_files_without_masks(save, content, problem):
    with pytest.raises(KitError, match=problem) as error:
        read_seg(save(content))
    assert "a_seg.npy" in str(error.value)


def test_damaged_files(tmp_path, save):
    whole = save(CONTENT).read_bytes()
    for size in (0, 5, 100, 200, len(whole) - 3):
        (tmp_path / "b_seg.npy").write_bytes(whole[:size])
        with pytest.raises(KitError, match=r"b_seg\.npy cannot be read .*; save it in Cellpose again"):
            read_seg(tmp_path / "b_seg.npy")
    with pytest.raises(KitError, match=r"c_seg\.npy does not exist"):
        read_seg(tmp_path / "c_seg.npy")


def test_a_file_that_would_fill_the_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    # PROTO 4, an empty list, and LONG_BINPUT with the number that makes Python reserve 32 GB.
    bomb = b"\x80\x04]r" + struct.pack("<I", (1 << 32) - 1) + b"."
    (tmp_path / "a_seg.npy").write_bytes(header.getvalue() + bomb)
    with pytest.raises(KitError, match="a damaged number of an object"):
        read_seg(tmp_path / "a_seg.npy")
    assert pickle.loads(b"\x80\x04]r\0\0\0\0.") == []
