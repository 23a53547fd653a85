"""Checkpoints: whole or not there, and random generators that go on where they were."""

import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from kitlib.errors import KitError
from kitlib.train import checkpoint


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def write(folder, *numbers):
    for number in numbers:
        checkpoint.save(folder, {"iteration": number, "model": {"w": torch.full((2000,), float(number))}})


def test_the_last_and_the_one_before_are_kept(tmp_path):
    assert checkpoint.load(tmp_path) == (None, "")
    assert not checkpoint.exists(tmp_path)
    write(tmp_path, 1, 2, 3)
    state, note = checkpoint.load(tmp_path)
    assert (state["iteration"], note) == (3, "")
    assert state["model"]["w"][0] == 3
    assert torch.load(checkpoint.previous(tmp_path), weights_only=True)["iteration"] == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last.pth", "previous.pth"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_last_falls_back_and_says_so(tmp_path, keep):
    write(tmp_path, 1, 2)
    path = checkpoint.last(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    state, note = checkpoint.load(tmp_path)
    assert state["iteration"] == 1
    assert "last.pth is damaged" in note
    assert "going on from previous.pth" in note


def test_a_missing_last_falls_back(tmp_path):
    write(tmp_path, 1, 2)
    checkpoint.last(tmp_path).unlink()  # killed between the two renames
    assert checkpoint.load(tmp_path).state["iteration"] == 1


def test_nothing_whole_is_an_error(tmp_path):
    write(tmp_path, 1, 2)
    for path in (checkpoint.last(tmp_path), checkpoint.previous(tmp_path)):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(KitError, match=r"last\.pth and previous\.pth are damaged.*to begin anew"):
        checkpoint.load(tmp_path)


@contextmanager
def small_disk():
    """No file may grow beyond 20 kB, as on a full disk (nor may the log of the tests: hold it briefly)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_the_earlier_ones(tmp_path):
    write(tmp_path, 1, 2)
    with pytest.raises(KitError, match=r"cannot write .*last\.pth"), small_disk():
        checkpoint.save(tmp_path, {"iteration": 3, "model": torch.zeros(100_000)})
    assert checkpoint.load(tmp_path).state["iteration"] == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last.pth", "previous.pth"]
    with pytest.raises(KitError, match=r"cannot write .*weights\.pth"), small_disk():
        checkpoint.save_weights(tmp_path / "weights.pth", {"model": torch.zeros(100_000)})
    assert not (tmp_path / "weights.pth").exists()


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(KitError, match="cannot write"):
        write(tmp_path, 1)


def test_random_generators_go_on_through_a_file(tmp_path):
    cpu = torch.device("cpu")
    draw()
    np.random.randn()  # leaves a second normal number cached
    checkpoint.save(tmp_path, {"random": checkpoint.random_state(cpu)})
    expected = [draw(), np.random.randn(), torch.randperm(5).tolist()]
    draw()
    checkpoint.set_random_state(checkpoint.load(tmp_path).state["random"], cpu)
    assert [draw(), np.random.randn(), torch.randperm(5).tolist()] == expected
