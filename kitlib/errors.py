"""Errors the user can mend, and the suggestions that help them do so."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class KitError(Exception):
    """Something that the user can mend. Its text is one clear sentence: what, where, and the mend."""


def unknown(kind: str, name: object, known: Iterable[object]) -> KitError:
    """The error for a name that is not among ``known``, suggesting the nearest one.

    Example:
        >>> print(unknown("profile", "papper", ["demo", "paper"]))
        unknown profile 'papper': did you mean 'paper'? (known: demo, paper)
    """
    names = sorted(str(n) for n in known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return KitError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names) or 'none'})")
