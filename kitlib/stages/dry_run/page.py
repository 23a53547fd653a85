"""A forecast as a page of text for a terminal of 100 columns, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from kitlib import files
from kitlib.forecast import cards
from kitlib.stages.dry_run.result import RunForecast, StageForecast
from kitlib.stages.record import aligned

WIDTH = 98
_HEAD = ("stage", "time", "trains", "predicts", "GPU", "host", "disk", "images/s", "limit", "cores")
_LEGEND = (
    "trains: trainings x iterations x images, and how many trainings run at once; "
    "predicts: frames x models; GPU: GiB of each; host: GiB of all processes at most; "
    "disk: GB that it leaves; limit: what it waits for; cores: busy with images"
)
_MEASURED = "Measured here: a step and a prediction with random weights, the loader on one core, memory."
_LEFT_OUT = (
    "Tuning of post-processing, reading LIVECell, figures, and gradients sent between hosts are left out."
)


def text(found: RunForecast) -> str:
    """The page."""
    parts = [[*found.title], [*_checks(found)]]
    if found.stages:
        parts.append([*_table(found), *_wrapped(_LEGEND)])
    advice = [line for stage in found.stages for line in stage.advice]
    if advice:
        parts.append(["to change:", *(line for one in advice for line in _wrapped(one, "  "))])
    if found.stages:
        parts.append([*_wrapped(_origin(found))])
    return "\n\n".join("\n".join(part) for part in parts)


def write(found: RunForecast, path: Path) -> Path:
    """Write the same as JSON.

    Raises:
        KitError: the folder cannot be written.
    """
    files.make_folder(path.parent)
    files.write_json(path, {**asdict(found), "fine": found.fine})
    return path


def _checks(found: RunForecast) -> Iterator[str]:
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        mark = "ok " if check.fine else "NO "
        first = f"{mark} {check.name:<{width}}  "
        yield from textwrap.wrap(check.said, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _table(found: RunForecast) -> list[str]:
    rows = [_row(stage) for stage in found.stages]
    total = sum(stage.hours for stage in found.stages)
    disk = sum(stage.disk_gb for stage in found.stages)
    rows.append(("in all", _time(total), "", "", "", "", f"{disk:.1f}", "", "", ""))
    return aligned(_HEAD, rows).splitlines()


def _row(stage: StageForecast) -> tuple[str, ...]:
    return (
        stage.stage,
        _time(stage.hours),
        stage.trained,
        f"{stage.predicted:,}" if stage.predicted else "",
        "" if stage.gpu_gib is None else f"{stage.gpu_gib:.1f}",
        f"{stage.host_gib:.0f}",
        f"{stage.disk_gb:.1f}",
        f"{stage.images_per_second:.3g}",
        stage.limit,
        f"{stage.cores:.1f}" if stage.cores else "",
    )


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(60 * hours, 1):.0f} min"


def _origin(found: RunForecast) -> str:
    """Which figures were measured here, which calculated, and which are not there."""
    if not found.calculated_for:
        return f"{_MEASURED} Calculated from these: hours and disk. {_LEFT_OUT}"
    shares = ", ".join(f"{share:.0%} in {kind}" for kind, share in cards.SHARE_OF_PEAK.items())
    return (
        "Measured here: images that a core prepares, host memory without CUDA. Calculated: times and GPU "
        f"memory, from counted operations and tensors of the model, for {found.calculated_for} by NVIDIA's "
        "data sheet, with the share of the peak that detectron2's published times of a V100 reach "
        f"({shares}; mixed precision {cards.MIXED_PRECISION} times as fast). Disk is counted. {_LEFT_OUT}"
    )


def _wrapped(sentence: str, indent: str = "") -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent=indent, subsequent_indent=indent)
