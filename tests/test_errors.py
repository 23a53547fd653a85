"""Suggestions for names that are not known."""

from __future__ import annotations

import pytest

from kitlib.errors import KitError, unknown


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("papper", ["paper", "demo"], "unknown profile 'papper': did you mean 'paper'? (known: demo, paper)"),
        ("xyz", ["paper", "demo"], "unknown profile 'xyz' (known: demo, paper)"),  # nothing is near
        ("a", [], "unknown profile 'a' (known: none)"),
        (3, [1, 13], "unknown profile '3': did you mean '13'? (known: 1, 13)"),
        ("", ["demo"], "unknown profile '' (known: demo)"),
    ],
)
def test_the_nearest_known_name_is_suggested(name: object, known: list, text: str) -> None:
    error = unknown("profile", name, known)
    assert isinstance(error, KitError)
    assert str(error) == text
