"""Time and memory of each stage on data of the competition's full size, and how they grow with the data.

``python experiments/full_size.py DIR`` makes synthetic data of half and of full size in DIR (3 GB), runs each
step of ``full_size_steps.py`` in a process of its own, and writes a table and a JSON file.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
from process_tree import Usage, measure

from kitlib import files
from kitlib.data.synthetic import full_size
from kitlib.runtime.machine import memory_gib

ROOT = Path(__file__).resolve().parents[1]
STEPS_FILE = Path(__file__).with_name("full_size_steps.py")
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "full-size.json"
COLUMNS = (
    *("step", "share", "status", "seconds", "CPU seconds"),
    *("peak MiB", "private MiB", "processes", "parts"),
)


@dataclass(frozen=True)
class Measurement:
    """One step on one share of the data.

    Attributes:
        step: a name in ``full_size_steps.STEPS``.
        share: of the published size.
        usage: what the step's processes took.
        parts: seconds by part, as far as the step came.
        message: the last line that a failed step printed, at most 160 characters.
    """

    step: str
    share: float
    usage: Usage
    parts: dict[str, float]
    message: str = ""


def run_step(step: str, share: float, data: Path, work: Path, limit: float) -> Measurement:
    """Run a step in a process of its own and measure it.

    Args:
        step: a name in ``full_size_steps.STEPS``.
        share: of the published size, for the result.
        data: a competition folder of that share.
        work: takes the step's results; steps read what earlier ones left there.
        limit: seconds after which the step is stopped.
    """
    from full_size_steps import result_file

    log, result = work / f"{step.replace('/', '_')}.log", result_file(work, step)
    result.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(STEPS_FILE), step, str(data), str(work)]
    with log.open("w") as output:
        usage = measure(command, output, limit, {**os.environ, "PYTHONPATH": path})
    parts = files.read_json(result) if result.is_file() else {}
    lines = log.read_text(errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()] if usage.status == "failed" else []
    message = said[-1].replace(f"{data}/", "").replace(f"{work}/", "")[:160] if said else ""
    return Measurement(step, share, usage, parts, message)


def table(measurements: Sequence[Measurement]) -> str:
    """All measurements as Markdown, then the growth of each step from one share to the next."""
    rows = [_row(COLUMNS), "|" + "---|" * len(COLUMNS)]
    for m in measurements:
        parts = m.message or ", ".join(f"{name} {seconds:.1f} s" for name, seconds in m.parts.items())
        usage, peak = m.usage, m.usage.peak
        cells = [m.step, f"{m.share:g}", usage.status, f"{usage.seconds:.1f}", f"{usage.cpu_seconds:.1f}"]
        rows.append(_row([*cells, f"{peak.total:.0f}", f"{peak.anonymous:.0f}", str(usage.processes), parts]))
    return "\n".join([*rows, "", *_growth(measurements), ""])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _growth(measurements: Sequence[Measurement]) -> list[str]:
    """Each finished step beside the same step on the next smaller share."""
    rows = [_row(("step", "shares", "seconds", "CPU seconds", "peak memory")), "|---|---|---|---|---|"]
    finished = [m for m in measurements if m.usage.status == "finished"]
    for m in finished:
        smaller = [other for other in finished if other.step == m.step and other.share < m.share]
        if smaller:
            base = max(smaller, key=lambda other: other.share)
            now, then = m.usage, base.usage
            pairs = [(now.seconds, then.seconds), (now.cpu_seconds, then.cpu_seconds)]
            pairs.append((now.peak.total, then.peak.total))
            factors = [f"x {a / b:.2f}" for a, b in pairs]
            rows.append(_row([m.step, f"{base.share:g} to {m.share:g}", *factors]))
    return rows


def as_dict(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What the JSON file holds: the machine, the day, and every measurement."""
    machine = {"cpus": len(os.sched_getaffinity(0)), "memory_gib": round(memory_gib(), 1)}
    rows = [asdict(m) for m in measurements]
    return {"date": date.today().isoformat(), "machine": machine, "measurements": rows}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--share", "shares", multiple=True, type=float, default=(0.5, 1.0), show_default=True)
@click.option("--only", "only", multiple=True, help="This step alone; may be given again.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds after which a step is stopped.")
@click.option("--size", default="520x704", show_default=True, metavar="HxW", help="Of the images, in pixels.")
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(
    folder: Path, shares: Sequence[float], only: Sequence[str], limit: float, size: str, out: Path
) -> None:
    """Measure each step against synthetic data of each share in DIR."""
    from full_size_steps import STEPS

    unknown = set(only) - STEPS.keys()
    if unknown:
        raise click.BadParameter(f"unknown step {sorted(unknown)}; the steps are {', '.join(STEPS)}")
    height, width = (int(side) for side in size.split("x"))
    done: list[Measurement] = []
    for share in sorted(shares):
        data = full_size.ensure(folder / f"data-{share:g}", share=share, size=(height, width), say=click.echo)
        work = _prepare(folder, share, data, keep=bool(only), limit=limit)
        for step in [name for name in STEPS if not only or name in only]:
            done.append(_run_and_tell(step, share, data, work, limit))
            files.write_json(out, as_dict(done))
            files.write_text(out.with_suffix(".md"), table(done))
    click.echo(table(done))


def _prepare(folder: Path, share: float, data: Path, keep: bool, limit: float) -> Path:
    """A folder for the results of all steps, empty but for made-up predictions; ``keep``: as it was left."""
    from full_size_steps import PREPARATION, predictions_made

    work = folder / f"work-{share:g}"
    if not keep:
        shutil.rmtree(work, ignore_errors=True)
    files.make_folder(work)
    if not predictions_made(work):
        _run_and_tell(PREPARATION, share, data, work, limit)
    if not predictions_made(work):
        raise click.ClickException(f"no predictions could be made; see {work / PREPARATION}.log")
    return work


def _run_and_tell(step: str, share: float, data: Path, work: Path, limit: float) -> Measurement:
    click.echo(f"{step} on {share:g} of the data ...")
    measured = run_step(step, share, data, work, limit)
    click.echo(f"  {measured.usage.status} after {measured.usage.seconds:.1f} s {measured.message}")
    return measured


if __name__ == "__main__":
    main()
