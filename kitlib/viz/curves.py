"""Learning curves and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kitlib.train import events
from kitlib.viz import style


@style.styled
def schedule(rates: Sequence[float]) -> Figure:
    """The learning rate of every iteration."""
    figure, (axes,) = style.figure(6, 2.2)
    axes.plot(np.arange(len(rates)), rates, color=style.INK)
    axes.set_xlabel("iteration")
    axes.set_title("Learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    return figure


@style.styled
def learning_curves(*metrics: Path) -> Figure:
    """Total loss, its parts and the validation score along the iterations.

    A sentence below says what is normal; a single evaluation is shown as bars.

    Args:
        metrics: the metrics.jsonl of a training, or of each of its phases, which a line divides.
    """
    table, begins = _read(metrics)
    has_map = "map" in table and table["map"].notna().any()
    figure, axes = style.figure(10 if has_map else 8, 3, 1, 3 if has_map else 2)
    figure.supxlabel(
        "\n".join(wrap(_NORMAL, 130 if has_map else 105)), fontsize=8, color=style.INK, x=0.02, ha="left"
    )
    _line(axes[0], table, "total_loss", "total loss", style.INK)
    axes[0].set_title("Total loss")
    parts = [c for c in table.columns if c.startswith("loss_")]
    for prefix, color in zip(("rpn", "cls", "box", "mask"), style.OTHERS, strict=False):
        chosen = [c for c in parts if prefix in c and (prefix == "rpn" or "rpn" not in c)]
        if chosen:
            _line(axes[1], table.assign(part=table[chosen].sum(axis=1, min_count=1)), "part", prefix, color)
    axes[1].set_title("Parts of the loss, summed over stages")
    style.legend(axes[1], fontsize=8)
    for panel in axes:
        panel.set_xlabel("iteration")
    _mark(axes[:2], begins)
    if has_map:
        rows = table[table["map"].notna()]
        _mark(axes[2:] if len(rows) > 1 else [], begins)
        _maps(axes[2], rows) if len(rows) > 1 else _evaluation(axes[2], rows.iloc[0])
    return figure


_NORMAL = (
    "Normal: single values jump by half, and the total may rise while the model improves, since better "
    "boxes are more positives for the later cascade stages, which add to the sum; the validation score tells."
)


@style.styled
def mask_loss(*metrics: Path) -> Figure:
    """The mask loss along the iterations, a line for each cascade stage (the paper's figure 4a).

    Args:
        metrics: as for ``learning_curves``.
    """
    table, begins = _read(metrics)
    figure, (axes,) = style.figure(6, 2.8)
    columns = sorted(c for c in table.columns if c.startswith("loss_mask"))
    for place, column in enumerate(columns):
        label = f"stage {place + 1}" if len(columns) > 1 else "mask loss"
        _line(axes, table, column, label, [*style.COLORS.values(), *style.OTHERS][place % 8])
    axes.set_xlabel("iteration")
    axes.set_title("Mask loss")
    _mark([axes], begins)
    style.legend(axes)
    return figure


@style.styled
def losses_of_runs(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """The total loss and the mask loss, summed over stages, along the iterations, a line for each run.

    Args:
        curves: the table of a training's ``curves.csv`` by the name of its run.
    """
    figure, axes = style.figure(10, 3.2, 1, 2)
    colors = [*style.COLORS.values(), *style.OTHERS]
    for place, (name, table) in enumerate(curves.items()):
        masks = table.filter(like="loss_mask").sum(axis=1, min_count=1)
        _line(axes[0], table, "total_loss", name, colors[place % len(colors)])
        _line(axes[1], table.assign(masks=masks), "masks", name, colors[place % len(colors)])
    for panel, title in zip(axes, ("Total loss", "Mask loss, summed over stages"), strict=True):
        panel.set_title(title)
        panel.set_xlabel("iteration")
        style.legend(panel)
    return figure


def _read(metrics: Sequence[Path]) -> tuple[pd.DataFrame, list[int]]:
    """The rows of a training's phases, their iterations counted through, and where each phase but the first
    begins."""
    tables = [pd.read_json(path, lines=True) for path in metrics]
    lengths = [int(table["iteration"].max()) for table in tables]
    return events.joined(tables), list(accumulate(lengths))[:-1]


def _mark(panels: Iterable[Axes], begins: Sequence[int]) -> None:
    """Draw a line where a phase begins."""
    for panel in panels:
        for place, iteration in enumerate(begins, 1):
            panel.axvline(iteration, color=style.INK, lw=0.8, ls=":")
            panel.annotate(
                f" phase {place}",
                (iteration, 1),
                (0, -2),
                ("data", "axes fraction"),
                "offset points",
                va="top",
                fontsize=7,
            )


def _line(axes: Axes, table: pd.DataFrame, column: str, label: str, color: str) -> None:
    """Draw a faint line of the values and a strong one of their running median over 5 % of the iterations."""
    rows = table[["iteration", column]].dropna()
    window = max(1, len(rows) // 20)
    smooth = rows[column].rolling(window, min_periods=1, center=True).median()
    top = float(np.percentile(rows[column], 99)) * 1.1 if len(rows) else 1.0
    top = max(top, axes.get_ylim()[1]) if axes.get_lines() else top
    axes.plot(rows["iteration"], rows[column], color=color, lw=0.7, alpha=0.25)
    axes.plot(rows["iteration"], smooth, color=color, label=label)
    # The axis ends at the 99th percentile of the highest line: a spike at the start would flatten all lines.
    axes.set_ylim(0, top)


def _maps(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the validation score of all frames and of each type."""
    for column in sorted(c for c in rows.columns if c.startswith("map/")):
        name = column.removeprefix("map/")
        axes.plot(rows["iteration"], rows[column], "o-", ms=3, color=style.color(name), label=name, lw=1)
    axes.plot(rows["iteration"], rows["map"], "o-", ms=4, color=style.INK, label="all")
    axes.set_ylim(bottom=0)
    axes.set_title("Validation score before tuning")
    axes.legend(fontsize=8)


def _evaluation(axes: Axes, row: pd.Series) -> None:
    """Draw the validation score of the only evaluation."""
    names = sorted(c for c in row.index if c.startswith("map/") and pd.notna(row[c]))
    shown = {**{name.removeprefix("map/"): row[name] for name in names}, "all": row["map"]}
    colors = [style.INK if name == "all" else style.color(name) for name in shown]
    bars = axes.bar(list(shown), list(shown.values()), 0.6, color=colors)
    axes.bar_label(bars, [f"{value:.3f}" for value in shown.values()], fontsize=8, padding=2)
    axes.margins(y=0.15)
    axes.grid(False, axis="x")
    axes.set_xlabel("")
    axes.set_title(f"Score before tuning, iteration {row['iteration']:.0f}")
