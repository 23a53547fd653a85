"""Files and addresses of weights: every kind that is read, and those that are refused or broken."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kitlib.errors import KitError
from kitlib.model import sources

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


def test_the_preset_that_a_checkpoint_was_trained_as(tmp_path: Path) -> None:
    torch.save({"model": STATE, "model_config": {"preset": "r50", "options": {}}}, tmp_path / "x.pth")
    assert sources.read(str(tmp_path / "x.pth")).preset == "r50"


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    assert same(sources.read(str(tmp_path / "x.safetensors")).tensors)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_detectron2s_pickles_of_arrays(protocol: int, tmp_path: Path) -> None:
    content = {"model": OrderedDict(ARRAYS), "__author__": "someone", "matching_heuristics": True}
    assert same(sources.read(str(dump(tmp_path / "x.pkl", content, protocol))).tensors)


def test_numbers_and_texts_beside_arrays_are_passed_over(tmp_path: Path) -> None:
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
