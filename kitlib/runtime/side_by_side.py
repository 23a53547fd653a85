"""Launches side by side, on an equal share of this host's GPUs and cores each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from kitlib.runtime.launch import Interrupted, Place


def run(starts: Sequence[Callable[[Place], None]], at_once: int) -> None:
    """Call functions that launch something and wait for its end, each in a thread.

    Args:
        starts: they take their place among those that run at the same time; the next one begins at the place
            that becomes free first.
        at_once: how many places there are.

    Raises:
        Interrupted: the user interrupted them; none of their processes is left.
        Exception: the first that one of them raised; the others are stopped then.
    """
    stop = threading.Event()
    failures: list[BaseException] = []
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(at_once):
        free.put(number)

    def call(start: Callable[[Place], None]) -> None:
        number = free.get()
        try:
            if not stop.is_set():
                start(Place(number, at_once, stop))
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            free.put(number)

    with ThreadPoolExecutor(at_once) as threads:
        try:
            wait([threads.submit(call, start) for start in starts])
        except KeyboardInterrupt:
            stop.set()
            raise Interrupted("interrupted; what was saved until then stays in their folders") from None
    if failures:
        # The later ones were stopped because of it.
        raise failures[0]
