"""What goes wrong, and what each kind of it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kitlib.analysis.oracle import Cost
from kitlib.analysis.steps import Removal
from kitlib.viz import style

#: What becomes of true cells, from good to bad.
_FATES = {
    "found": style.FOUND,
    "badly outlined": "#E69F00",
    "merged": "#CC79A7",
    "split": "#882255",
    "missed": style.MISSED,
}


@style.styled
def error_costs(costs: Sequence[Cost], score: float) -> Figure:
    """What the score would gain if the errors of one kind were corrected, with 90 % intervals over images.

    Args:
        costs: of ``oracle.costs``.
        score: the metric as it is.
    """
    figure, (axes,) = style.figure(7.5, 0.9 + 0.32 * len(costs))
    places = np.arange(len(costs))
    gains = np.array([cost.gain for cost in costs])
    below = gains - [cost.low for cost in costs]
    above = [cost.high for cost in costs] - gains
    axes.barh(places, gains, 0.62, color="#56B4E9")
    axes.errorbar(gains, places, xerr=np.maximum([below, above], 0), fmt="none", ecolor=style.INK, lw=1.2)
    names = sorted({name for cost in costs for name in cost.by_category})
    for place, cost in enumerate(costs):
        for name, gain in cost.by_category.items():
            label = name if place == 0 else None
            axes.plot([gain], [place], "o", ms=4, color=style.color(name, names), label=label, zorder=3)
        axes.annotate(f"{cost.gain:+.3f}", (1.02, place), **style.MARGIN)
    axes.set_yticks(places, [f"{cost.kind}  ({cost.errors:,})" for cost in costs])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_title(f"What the score of {score:.3f} would gain if errors of one kind were corrected")
    axes.set_xlabel("gain of the metric, 90 % interval over images; in brackets the number of errors")
    style.legend(axes, ncols=max(len(names), 1), loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return figure


@style.styled
def cell_fates(counts: pd.DataFrame) -> Figure:
    """What becomes of the true cells of each type and size, as shares.

    Args:
        counts: of ``errors.counts``.
    """
    rows = counts[counts["true cells"] > 0]
    figure, (axes,) = style.figure(8, 1.0 + 0.28 * len(rows))
    left = np.zeros(len(rows))
    for fate, color in _FATES.items():
        shares = (rows[fate] / rows["true cells"]).to_numpy(float)
        bars = axes.barh(np.arange(len(rows)), shares, 0.72, left, color=color, label=fate)
        labels = [f"{share:.0%}" if share >= 0.06 else "" for share in shares]
        axes.bar_label(bars, labels, label_type="center", fontsize=8, color=style.ink_on(color))
        left += shares
    axes.set_yticks(np.arange(len(rows)), [_of_size(row) for row in rows.to_dict("records")])
    for place, number in enumerate(rows["true cells"]):
        axes.annotate(style.count(int(number), "cell"), (1.02, place), **style.MARGIN)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(False, axis="y")
    axes.set_title("What becomes of true cells, by type and size")
    style.legend(axes, ncols=len(_FATES), loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


def _of_size(row: dict) -> str:
    bound = "" if pd.isna(row["up to"]) else f", to {row['up to']:.0f} px"
    return f"{row['type']} {row['size']}{bound}"


@style.styled
def post_steps(removals: Sequence[Removal]) -> Figure:
    """The metric after each step of post-processing, and the instances that each removed.

    Args:
        removals: of ``steps.follow``.
    """
    figure, (left, right) = style.figure(10, 0.8 + 0.3 * len(removals), 1, 2)
    _scores_after(left, removals)
    _removed(right, removals)
    for axes, labels in ((left, [removal.name for removal in removals]), (right, [""] * len(removals))):
        axes.set_yticks(range(len(removals)), labels)
        axes.set_ylim(len(removals) - 0.5, -0.5)
        axes.grid(False, axis="y")
        style.legend(axes, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


def _scores_after(axes: Axes, removals: Sequence[Removal]) -> None:
    """Draw the metric after each step, of each type and of all images."""
    places, before = range(len(removals)), removals[0].score
    names = sorted({name for removal in removals for name in removal.by_category})
    for name in names:
        values = [removal.by_category[name] for removal in removals]
        axes.plot(values, places, "o-", ms=3, lw=1, color=style.color(name, names), label=name)
    axes.plot([r.score for r in removals], places, "D-", ms=4, color=style.INK, label="all")
    for place, removal in enumerate(removals):
        change = f" ({removal.score - before:+.3f})" if place else ""
        axes.annotate(f"{removal.score:.3f}{change}", (1.02, place), **style.MARGIN)
        before = removal.score
    axes.set_title("Metric after each step (change)")
    axes.margins(x=0.1)


def _removed(axes: Axes, removals: Sequence[Removal]) -> None:
    """Draw how many instances each step removed, and how many of them had found a cell."""
    places = range(len(removals))
    removed = np.array([sum(map(len, removal.removed.values())) for removal in removals])
    found = np.array([removal.found for removal in removals])
    axes.barh(places, removed - found, 0.62, color="#BBBBBB", label="wrong ones removed")
    axes.barh(places, found, 0.62, removed - found, color=style.WRONG, label="had found a cell")
    for place, (number, lost) in enumerate(zip(removed, found, strict=True)):
        text = f"{number:,} removed, {lost:,} had found a cell" if number else "-"
        text = style.count(removals[0].cells, "instance") if place == 0 else text
        axes.annotate(text, (1.02, place), **style.MARGIN)
    axes.set_title("Instances removed")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
