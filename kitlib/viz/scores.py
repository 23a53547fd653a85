"""The metric by type, by threshold, and along the thresholds that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kitlib.metric import Score
from kitlib.post.tuning.cross_validation import Row
from kitlib.post.tuning.search import Tuning
from kitlib.viz import style


@style.styled
def by_threshold(scores: Mapping[str, Score]) -> Figure:
    """Precision at each IoU threshold; one line a score."""
    figure, (axes,) = style.figure(6, 2.8)
    palette = [style.INK, *style.OTHERS]
    for (name, score), color in zip(scores.items(), cycle(palette), strict=False):
        values = score.by_threshold
        axes.plot(
            list(values), list(values.values()), "o-", ms=3.5, color=color, label=f"{name} {score.mean:.3f}"
        )
    axes.set_ylim(0, 1)
    axes.set_xlabel("IoU threshold")
    axes.set_title("Mean precision by IoU threshold")
    style.legend(axes)
    return figure


@style.styled
def by_category(scores: Mapping[str, Score]) -> Figure:
    """The metric of each cell type and of all images; one group of bars a type, one bar a score."""
    names = sorted({c for s in scores.values() for c in s.by_category})
    figure, (axes,) = style.figure(6, 2.8)
    width = 0.8 / max(len(scores), 1)
    shades = np.linspace(1.0, 0.45, len(scores))[::-1]
    for place, (score, shade) in enumerate(zip(scores.values(), shades, strict=True)):
        values = [*(score.by_category.get(n, np.nan) for n in names), score.mean]
        colors = [*(style.color(n, names) for n in names), style.INK]
        where = np.arange(len(values)) + (place - (len(scores) - 1) / 2) * width
        bars = axes.bar(where, values, width * 0.92, color=[style.tint(c, shade) for c in colors])
        axes.bar_label(bars, [f"{v:.2f}" for v in values], fontsize=8, padding=2)
    axes.set_xticks(range(len(names) + 1), [*names, "all"])
    axes.margins(y=0.15)
    axes.set_title("Competition metric: " + ", then ".join(scores))
    axes.grid(False, axis="x")
    return figure


@style.styled
def tuning(found: Tuning) -> Figure:
    """The metric of each cell type along the score threshold, with the chosen threshold marked."""
    figure, (axes,) = style.figure(6, 2.8)
    names = sorted(found.curves.keys() - {"default"})
    for name in names:
        color, curve = style.color(name, names), found.curves[name]
        axes.plot(found.thresholds, curve, color=color, label=f"{name}, {found.frames[name]} images")
        best = found.config.for_category(name).score_threshold
        height = np.interp(best, found.thresholds, curve)
        axes.plot([best], [height], "o", color=color)
        offset: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{best:.2f}", (best, height), **offset)
    axes.set_xlabel("score threshold")
    axes.set_title("Metric on the validation images by score threshold")
    axes.margins(y=0.15)
    style.legend(axes)
    return figure


@style.styled
def tuning_methods(rows: Sequence[Row]) -> Figure:
    """The cross-validated metric of each method of tuning, with its interval; a coloured dot a type."""
    figure, (axes,) = style.figure(7, 0.6 + 0.28 * len(rows))
    names = sorted({c for row in rows for c in row.by_category})
    best = max(rows, key=lambda row: row.mean, default=None)
    for place, row in enumerate(rows):
        for name, value in row.by_category.items():
            label = name if place == 0 else None
            axes.plot([value], [place], "o", ms=4, color=style.color(name, names), label=label)
        axes.plot([row.low, row.high], [place, place], color=style.INK, lw=1.2, zorder=3)
        axes.plot([row.mean], [place], "D", ms=5, color=style.INK, zorder=4)
        weight = "bold" if row is best else "normal"
        margin: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "va": "center",
            "annotation_clip": False,
        }
        axes.annotate(f"{row.mean:.3f}", (1.02, place), weight=weight, **margin)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_title("Metric on images that had no part in the tuning, 90 % interval")
    style.legend(axes, ncols=max(len(names), 1), loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure
