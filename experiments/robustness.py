"""The tables of docs/robustness.md, from the results of fuzz.py, kills.py, full_disk.py and kit rehearse.

``python experiments/robustness.py`` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click

from kitlib import files
from kitlib.runtime.machine import memory_gib

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "robustness"
PAGE = ROOT / "docs" / "robustness.md"
_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
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


def kills_table(values: Values) -> str:
    """A row for each command and kind of process that was hit."""
    by_target: dict[tuple[str, str], list[Values]] = {}
    for kill in values["kills"]:
        by_target.setdefault((kill["command"], kill["process"]), []).append(kill)
    header = ("command", "process", *_SIGNALS, "in the stages", "until all had ended", "faults")
    rows = [_kills_row(*target, by_target[target]) for target in sorted(by_target)]
    count, faults = len(values["kills"]), len(values["faults"])
    text = f"{count} kills in {values['chains']} chains, seed {values['seed']}; faults: {faults}"
    found = "".join(f"\n- {fault}" for fault in values["faults"])
    return f"{_markdown([header, *rows])}\n\n{text}; {_circumstances(values)}{found}"


def _kills_row(command: str, process: str, kills: Sequence[Values]) -> Sequence[str]:
    counts = [str(sum(kill["signal"] == signal for kill in kills)) for signal in _SIGNALS]
    stages = ", ".join(sorted({kill["stage"][:2] for kill in kills if kill["stage"]}))
    longest = max(kill["seconds"] for kill in kills)
    faults = sum(bool(kill["fault"]) for kill in kills)
    return (command, process, *counts, stages, f"at most {longest:.0f} s", str(faults))


def full_disk_table(values: Values) -> str:
    """A row for each stage and each room that the disk had left."""
    header = ("step", "room", "the last line", "faults")
    rows = [
        (one["step"], f"{one['room_kib']} KiB", one["sentence"], "; ".join(one["faults"]) or "0")
        for one in values["steps"]
    ]
    return f"{_markdown([header, *rows])}\n\n{_circumstances(values)}"


def faults_table(values: Values) -> str:
    """A row for each fault of kit rehearse --faults."""
    header = ("fault", "as it should", "what came of it", "seconds", "peak memory")
    rows = [
        (
            *(one["fault"], "yes" if one["as_expected"] else "no", one["result"]),
            *(f"{one['seconds']:.0f}", f"{one['peak_bytes'] / 2**30:.1f} GiB"),
        )
        for one in values["faults"]
    ]
    return f"{_markdown([header, *rows])}\n\n{_circumstances(values)}"


def _circumstances(values: Values) -> str:
    machine = values["machine"]
    return f"{values['date']}, {machine['cpus']} cores, {machine['memory_gib']:g} GiB of memory."


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    header, *rest = rows
    lines = [header, ["---"] * len(header), *rest]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


#: What writes the table of each file in ``RESULTS``.
TABLES: dict[str, Callable[[Values], str]] = {
    "fuzz": fuzz_table,
    "kills": kills_table,
    "full_disk": full_disk_table,
    "faults": faults_table,
}


@click.command(help=__doc__)
@click.argument("rehearsal", required=False, type=click.Path(path_type=Path))
def main(rehearsal: Path | None) -> None:
    """Write the page; with REHEARSAL, the rehearsal.json of a run, with its faults."""
    if rehearsal:
        keep("faults", {**circumstances(), "faults": files.read_json(rehearsal)["faults"]}, None)
    write()


if __name__ == "__main__":
    main()
