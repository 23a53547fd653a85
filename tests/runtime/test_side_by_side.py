"""Launches side by side: the place of each, and that none goes on beside one that failed."""

import threading

import pytest

from kitlib.errors import KitError
from kitlib.runtime import side_by_side


def test_as_many_run_at_once_as_there_are_places(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    together, seen = threading.Barrier(2, timeout=20), []

    def start(place):
        together.wait()
        seen.append(place.visible(2))

    side_by_side.run([start] * 4, at_once=2)
    assert sorted(seen) == ["4,5", "4,5", "6,7", "6,7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    side_by_side.run([start] * 2, at_once=2)
    assert sorted(seen[4:]) == ["0,1", "2,3"]


def test_one_that_fails_stops_those_beside_it():
    def fails(place):
        raise KitError("the loss is not finite; lower max_lr")

    def goes_on(place):
        assert place.stop.wait(20)
        raise KitError("stopped, as another one was")

    never = []
    with pytest.raises(KitError, match="the loss is not finite"):
        side_by_side.run([goes_on, fails, never.append], at_once=2)
    assert not never
