"""The table and the figure of docs/speed.md, from the rows that ``run.py --keep`` left."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from harness import HERE

from kitlib.files import write_text

RESULTS = HERE / "results" / "bench"
PAGE = HERE.parent.parent / "docs" / "speed.md"
BEGIN, END = "<!-- rows of tests/benchmarks/results/bench -->\n", "<!-- end of the rows -->\n"


def render(results: Path = RESULTS) -> str:
    """The rows of all results as a Markdown table, and the machines they were taken on."""
    taken = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(results.glob("*.json"))}
    lines = ["| what | on what | ours | peer | times better |", "|---|---|---|---|---|"]
    lines += [_line(row) for result in taken.values() for row in result["rows"]]
    by_machine: dict[str, list[str]] = {}
    for name, result in taken.items():
        text = "{cores} cores of {cpu}, Python {python}, torch {torch}".format(**result["machine"])
        load = result["machine"].get("load")
        by_machine.setdefault(text, []).append(name if load is None else f"{name} (load {load:g})")
    notes = [f"On {machine}: {', '.join(names)}." for machine, names in by_machine.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def _line(row: dict[str, Any]) -> str:
    work, _, peer = row["work"].partition("; ")
    ratio = (
        "" if row["ratio"] is None else f"{row['ratio']:.2g}" if row["ratio"] < 10 else f"{row['ratio']:.0f}"
    )
    beside = f"{peer.removeprefix('peer: ')}: {_figure(row['peer'], row['unit'])}" if peer else ""
    return f"| {row['name']} | {work} | {_figure(row['ours'], row['unit'])} | {beside} | {ratio} |"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s" and value < 0.1:
        value, unit = 1000 * value, "ms"
    return f"{_rounded(value)} {unit}"


def _rounded(value: float) -> str:
    """Two digits, as ratios on a busy machine hold no more."""
    return f"{float(f'{value:.2g}'):,.10g}"


def page() -> str:
    """docs/speed.md with the table of today's results."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{render()}\n{END}{rest.partition(END)[2]}"


def write() -> None:
    """Bring docs/speed.md up to date."""
    write_text(PAGE, page())
    draw(PAGE.parent / "pictures" / "growth.png")


def draw(path: Path) -> None:
    """How the rows that have a place on an axis grow, ours and the peer's."""
    results = [json.loads(file.read_text("utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    rows = [row for result in results for row in result["rows"] if row["at"] is not None]
    curves = [(name, list(group)) for name, group in groupby(rows, key=lambda row: row["name"])]
    if not curves:
        return
    figure, axes = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.2), sharey=True, squeeze=False)
    for ax, (name, group) in zip(axes[0], curves, strict=True):
        at = [row["at"] for row in group]
        ax.plot(at, [row["ours"] for row in group], "o-", color="#1f77b4")
        ax.plot(at, [row["peer"] for row in group], "s--", color="#888888")
        what, _, number = name.partition(", by ")
        ax.set(xscale="log", yscale="log", xlabel=number, title=what)
        ax.spines[["top", "right"]].set_visible(False)
    peer = rows[0]["work"].partition("; ")[2].partition(",")[0]
    axes[0, 0].set_ylabel("seconds")
    axes[0, 0].legend(["kitlib", peer], frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
