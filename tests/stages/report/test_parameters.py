"""Parameters side by side."""

from __future__ import annotations

from kitlib import config
from kitlib.stages.report.parameters import differing, flat, shown


def test_nested_parameters_are_flat_and_empty_ones_stay() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}


def test_only_what_differs_is_there_and_folders_are_not() -> None:
    first = {"data": "x", "out": "y", "seed": 0, "schedule": {"max_lr": 1e-3}, "cleaning": {}}
    second = {"data": "z", "out": "", "seed": 0, "schedule": {"max_lr": 6e-4}, "weights": ""}
    assert differing(first, second) == {
        "schedule.max_lr": ("0.001", "0.0006"),
        "cleaning": ("{}", "not set"),
        "weights": ("not set", "''"),
    }


def test_values_are_written_as_a_profile_has_them() -> None:
    for value in (1, 1e-5, True, None, "off", "a b", [0.5, 0.4], [[1, 2], [3, 4]], {}, ["x: y"]):
        assert config.parse_yaml(shown(value)) == value
