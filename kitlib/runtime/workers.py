"""Objects in processes of their own, whose methods run there: for work on all cores without threads.

A worker is started as ``python -m kitlib.runtime.workers``, so that it needs no ``fork`` and never imports
the caller's main module, and is spoken to through its standard input and output. It ends when its caller
closes it, is interrupted or dies.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Protocol

from kitlib.errors import KitError
from kitlib.runtime import launch


class Caller(Protocol):
    """What calls the methods of an object, here or in another process."""

    def call(self, method: str, *args: Any) -> Any: ...


class Here:
    """An object in this process, called as one in a worker is."""

    def __init__(self, make: Callable[..., object], *args: Any):
        self._object = make(*args)

    def call(self, method: str, *args: Any) -> Any:
        """The method's result."""
        return getattr(self._object, method)(*args)


class Worker:
    """An object in a process of its own. One thread at a time may call it.

    Args:
        make: a function or class of a module, which makes the object in the worker.
        args: its arguments; they and all that is sent later are pickled.
        threads: that numerical libraries use in the worker.
    """

    def __init__(self, make: Callable[..., object], *args: Any, threads: int = 1):
        one_each = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=launch.with_kit({**launch.environment(), **one_each}),
            # An interrupt of the terminal is the caller's to handle.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        # Sent with the first call, so that several workers can start at the same time.
        self._unsent: tuple[Any, tuple[Any, ...]] | None = (make, args)

    def call(self, method: str, *args: Any) -> Any:
        """The method's result.

        Raises:
            launch.Died: the worker was killed.
            Exception: what the method, or the making of the object, raised.
        """
        if self._unsent is not None:
            self._send(*self._unsent)
            self._unsent = None
            self._receive()
        self._send(method, args)
        return self._receive()

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            # What is left in the buffer has no reader any more.
            with contextlib.suppress(OSError):
                pipe.close()

    def _send(self, what: Any, args: tuple[Any, ...]) -> None:
        # Where the worker has died, its answer tells.
        with contextlib.suppress(BrokenPipeError, ValueError):
            pickle.dump((what, args), self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()

    def _receive(self) -> Any:
        try:
            failed, value = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError, ValueError) as error:
            raise launch.Died(self._why()) from error
        if failed:
            raise value
        return value

    def _why(self) -> str:
        status = self._process.wait()
        how = launch.killed("a worker process", status) if status < 0 else f"a worker ended with {status}"
        return f"{how}; run the same again, what was finished is kept"


@contextmanager
def started(make: Callable[..., object], shares: Sequence[tuple[Any, ...]]) -> Iterator[list[Worker]]:
    """A worker for each share of some work; they end with the block, whatever they are doing.

    Args:
        make: as for ``Worker``.
        shares: the arguments of each.
    """
    with ExitStack() as stack:
        found = []
        for share in shares:
            found.append(Worker(make, *share))
            stack.callback(found[-1].close)
        yield found


def call_each(callers: Sequence[Caller], method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of a method of every object, which work at the same time; ``args`` has a tuple for each."""
    if len(callers) == 1:
        return [callers[0].call(method, *args[0])]
    with ThreadPoolExecutor(len(callers)) as threads:
        return [
            future.result()
            for future in [
                threads.submit(caller.call, method, *each) for caller, each in zip(callers, args, strict=True)
            ]
        ]


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Make the object of the first request and call its methods, until the requests end."""
    found: object = None
    while True:
        try:
            what, args = pickle.load(requests)
        except EOFError:
            return
        try:
            result = what(*args) if callable(what) else getattr(found, what)(*args)
            if callable(what):
                found, result = result, None
            answer = False, result
        except Exception as error:
            answer = True, _portable(error)
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _portable(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled and read back."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return KitError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    launch.end_with_parent(int(sys.argv[1]))
    # What a library prints must not get between the answers.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, out)
