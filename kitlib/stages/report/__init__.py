"""What runs left, for people: the report of a run, the list of runs, their comparison, notebooks as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kitlib.offline import reason


@contextmanager
def spared(what: str, say: Callable[[str], object] = print) -> Iterator[None]:
    """Write something for people: where that fails, whyever, a sentence says so and the run goes on.

    Args:
        what: is written, for the sentence.
        say: is given that sentence.
    """
    try:
        yield
    except Exception as error:
        say(f"{what} was not written: {reason(error)}")
