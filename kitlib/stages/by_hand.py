"""A stage whose cells are run one by one in JupyterLab: what it was given, and how long its cells took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Session:
    """Cells that are run by hand; the time between them, in which a person reads, does not count.

    Attributes:
        parameters: what the notebook was given, as a run records it.
        seconds: how long the cells that have ended took.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    _since: float | None = field(default_factory=time.monotonic)
    _forget: Callable[[], None] = lambda: None

    def elapsed(self) -> float:
        """How long all cells have taken until now, in seconds."""
        return self.seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    def watch(self) -> None:
        """Count from here on the cells of this kernel, where there is one."""
        from IPython import get_ipython

        shell = get_ipython()
        if shell is None:
            return
        callbacks = {"pre_run_cell": self._begin, "post_run_cell": self._end}
        for event, callback in callbacks.items():
            shell.events.register(event, callback)

        def forget() -> None:
            for event, callback in callbacks.items():
                shell.events.unregister(event, callback)

        self._forget = forget

    def close(self) -> None:
        """Count no further cells."""
        self._forget()
        self._forget = lambda: None

    def _begin(self, *_: Any) -> None:
        self._since = time.monotonic()

    def _end(self, *_: Any) -> None:
        self.seconds, self._since = self.elapsed(), None
