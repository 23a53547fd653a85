"""Run the benchmarks, print their rows as they come, and write them to outputs/bench.json.

python tests/benchmarks/run.py [--keep] [NAME ...]    NAME as in bench_NAME.py; all of them without one

With --keep, the rows also replace those in tests/benchmarks/results/bench and in the table of docs/speed.md.
Exits 1 when a benchmark failed or a bar was not met.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import table
import torch
from harness import HERE, Row, Skip

from kitlib.errors import KitError, unknown
from kitlib.files import write_json
from kitlib.runtime.machine import memory_gib

OUTPUT = HERE.parent.parent / "outputs" / "bench.json"
COLUMNS = "{:<34} {:>12} {:>12} {:>5} {:>8} {:>7} {:<4} {}"


def main(names: Sequence[str] = (), output: Path = OUTPUT, keep: bool = False) -> int:
    """Run the named benchmarks (all when none is named); returns the exit status."""
    rows: list[Row] = []
    failed: list[str] = []
    print(COLUMNS.format("name", "ours", "peer", "unit", "ratio", "bar", "met", "work"))
    for name in select(names):
        try:
            before, taken_on = len(rows), machine()
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # a benchmark may have lowered it
            for row in importlib.import_module(f"bench_{name}").rows():
                rows.append(row)
                print(line(row), flush=True)
            if keep:
                kept = [row.as_dict() for row in rows[before:]]
                write_json(table.RESULTS / f"{name}.json", {"machine": taken_on, "rows": kept})
        except Skip as reason:
            print(f"{name}: skipped: {reason}")
        except Exception:  # one broken benchmark does not take the figures of the others with it
            traceback.print_exc()
            failed.append(name)
    write_json(output, {"machine": machine(), "rows": [row.as_dict() for row in rows], "failed": failed})
    if keep:
        table.write()
    missed = [row.name for row in rows if row.met is False]
    print(f"{len(rows)} rows in {output}; below their bar: {', '.join(missed) or 'none'}")
    return int(bool(failed or missed))


def select(names: Sequence[str]) -> list[str]:
    """The nouns of the ``bench_*.py`` modules that are asked for.

    Raises:
        KitError: one of ``names`` is not among them.
    """
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, known)
    return list(names) or known


def line(row: Row) -> str:
    """A row as a line of the table."""
    met = {True: "yes", False: "NO", None: ""}[row.met]
    return COLUMNS.format(
        row.name,
        _figure(row.ours),
        _figure(row.peer),
        row.unit,
        _figure(row.ratio),
        _figure(row.bar),
        met,
        row.work,
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def machine() -> dict[str, str | int | float]:
    """What the figures were taken on."""
    return {
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib(), 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "pycocotools")},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")), platform.machine()
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    try:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument(
            "--keep", action="store_true", help="keep the rows for the table of docs/speed.md"
        )
        given = parser.parse_args()
        sys.exit(main(given.names, keep=given.keep))
    except KitError as error:
        sys.exit(f"error: {error}")
