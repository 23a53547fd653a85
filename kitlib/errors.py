"""Errors that the user can correct, and suggestions for unknown names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_QUOTED = 80


def shortened(value: object) -> str:
    """A value of the user's for a message: in one line, and cut after 80 characters."""
    text = str(value)
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:_QUOTED])
    return shown + ("..." if len(text) > _QUOTED else "")


class KitError(Exception):
    """Something that the user can correct. Its text is one sentence: what is wrong, where, and the remedy."""


def unknown(kind: str, name: object, known: Iterable[object]) -> KitError:
    """The error for a name that is not among ``known``, with the nearest known name.

    Args:
        kind: what the name stands for, as "profile".
        name: the unknown name.
        known: all names that there are.

    Example:
        >>> print(unknown("profile", "papper", ["demo", "paper"]))
        unknown profile 'papper': did you mean 'paper'? (known: demo, paper)
    """
    names, name = sorted(str(n) for n in known), shortened(name)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return KitError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names) or 'none'})")
