"""What a benchmark is made of: rows, races, and the memory of a piece of work.

A module ``bench_<noun>.py`` beside this one has a function ``rows()`` that yields ``Row`` records::

    from harness import Row, race

    def rows():
        ours, peer = race(lambda: rle.iou(a, b), lambda: by_label_maps(a, b))
        yield Row("iou", "506 real images, all pairs", ours, peer, bar=10)

``./run_all.sh bench`` runs them all (``bench rle``: only ``bench_rle.py``) and writes ``outputs/bench.json``.
A row says what was measured, never what was hoped: ours and the peer's are taken in the same run, in turns.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MIB = 1024.0


class Skip(Exception):
    """Raised by ``rows()`` where something it needs is not there; its text says what."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: what is measured, in a word or two.
        work: on what: how many images, cells, pixels; behind a semicolon, what the peer is.
        ours: the figure of this project.
        peer: the figure of what it is compared with, taken in the same run; None where it stands alone.
        unit: of both.
        better: ``"lower"`` or ``"higher"``.
        at: of rows of one name that show how both grow: the number that grows.
        bar: with a peer, how many times better ours has to be; alone, the limit of ``ours``. None: no bar.
    """

    name: str
    work: str
    ours: float
    peer: float | None = None
    unit: str = "s"
    better: str = "lower"
    bar: float | None = None
    at: float | None = None

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"better is 'lower' or 'higher', not {self.better!r}")

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the peer's; below 1 it is worse."""
        if self.peer is None:
            return None
        good, bad = (self.peer, self.ours) if self.better == "lower" else (self.ours, self.peer)
        return good / bad if bad else float("inf")

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None where there is no bar."""
        if self.bar is None:
            return None
        if self.ratio is not None:
            return self.ratio >= self.bar
        return self.ours <= self.bar if self.better == "lower" else self.ours >= self.bar

    def as_dict(self) -> dict[str, Any]:
        """The row with its ratio and whether it met its bar, for JSON."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def seconds(work: Callable[[], object], rounds: int = 5, warm: bool = True) -> float:
    """The best wall-clock time of ``work`` in ``rounds`` rounds, after one that does not count."""
    if warm:
        work()
    return min(_once(work) for _ in range(rounds))


def race(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5, warm: bool = True
) -> tuple[float, float]:
    """The best time of each, taken in turns so that a busy machine slows both."""
    if warm:
        ours()
        peer()
    pairs = [(_once(ours), _once(peer)) for _ in range(rounds)]
    return min(a for a, _ in pairs), min(b for _, b in pairs)


def _once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mib(prepare: Callable[[], Callable[[], object]]) -> float:
    """The most memory, in MiB, that a piece of work needs over what the process held before it (Linux).

    Args:
        prepare: a function of a ``bench_*`` module, called in a fresh process; it makes the input and returns
            the work, which alone is measured.
    """
    child = [sys.executable, str(HERE / "harness.py"), inspect.getfile(prepare), prepare.__name__]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{prepare.__name__} failed in its own process:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure_peak(file: str, name: str) -> float:
    import runpy

    work = runpy.run_path(file)[name]()
    Path("/proc/self/clear_refs").write_text("5")  # sets the kernel's high-water mark to what is held now
    before = _status_kib("VmRSS")
    work()
    return (_status_kib("VmHWM") - before) / MIB


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def real_data() -> Path:
    """The folder of real data that KIT_REAL_DATA names.

    Raises:
        Skip: it is not set.
    """
    folder = os.environ.get("KIT_REAL_DATA", "")
    if not folder:
        raise Skip("KIT_REAL_DATA is not set (a folder with sartorius-real/ and dsb2018-fluo/)")
    return Path(folder)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    print(json.dumps(_measure_peak(*sys.argv[1:])))
