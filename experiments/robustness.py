"""The tables of docs/robustness.md, from the results of fuzz.py, kills.py, full_disk.py and kit rehearse.

``python experiments/robustness.py`` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.runtime.machine import memory_gib

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "robustness"
PAGE = ROOT / "docs" / "robustness.md"
_FAULTS = ("traceback", "message", "hang", "crash", "memory")

Values = Mapping[str, Any]


def circumstances() -> dict[str, Any]:
    """The day and the machine of a measurement."""
    machine = {"cpus": len(os.sched_getaffinity(0)), "memory_gib": round(memory_gib(), 1)}
    return {"date": date.today().isoformat(), "machine": machine}


def keep(name: str, values: Values, out: Path | None) -> None:
    """Write results to ``out``, or without it to those of the page, which is written anew.

    Args:
        name: of the results, a key of ``TABLES``.
        values: the results.
        out: a JSON file.
    """
    files.write_json(out or RESULTS / f"{name}.json", values)
    if out is None:
        write()


def page() -> str:
    """docs/robustness.md with the tables of today's results."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            begin, end = f"<!-- {name}.json -->\n", f"<!-- end of {name}.json -->\n"
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{table(files.read_json(path))}\n\n{end}{rest.partition(end)[2]}"
    return text


def write() -> None:
    """Bring docs/robustness.md up to date."""
    files.write_text(PAGE, page())


# -------------------------------------------------------------------------------- tables


def fuzz_table(values: Values) -> str:
    """A row for each format, and one for all together."""
    formats: Mapping[str, Values] = values["formats"]
    rows = [_fuzz_row(name, [one]) for name, one in formats.items()]
    rows.append(_fuzz_row("all", list(formats.values())))
    header = ("format", "damaged files", "refused", *_FAULTS, "peak MiB")
    return _markdown([header, *rows]) + f"\n\n{values['minutes']:g} minutes, {_circumstances(values)}"


def _fuzz_row(name: str, tallies: Sequence[Values]) -> Sequence[str]:
    counts = [sum(one[key] for one in tallies) for key in ("files", "refused")]
    counts += [sum(one["faults"][kind] for one in tallies) for kind in _FAULTS]
    counts.append(max(one["peak_mib"] for one in tallies))
    return (name, *(f"{count:,}" for count in counts))


def _circumstances(values: Values) -> str:
    machine = values["machine"]
    return f"{values['date']}, {machine['cpus']} cores, {machine['memory_gib']:g} GiB of memory."


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    header, *rest = rows
    lines = [header, ["---"] * len(header), *rest]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


#: What writes the table of each file in ``RESULTS``.
TABLES: dict[str, Callable[[Values], str]] = {"fuzz": fuzz_table}


if __name__ == "__main__":
    write()
