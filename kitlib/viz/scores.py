"""The metric by type, by threshold, and along the thresholds that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kitlib.analysis import instances
from kitlib.analysis.growth import Growth
from kitlib.analysis.instances import Bin
from kitlib.metric import Score, interval
from kitlib.post.tuning.cross_validation import Row
from kitlib.post.tuning.search import Tuning
from kitlib.records import Frame
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
def by_category(scores: Mapping[str, Score], frames: Sequence[Frame] = ()) -> Figure:
    """The metric of each cell type and of all images; one group of bars a type, one bar a score.

    Args:
        scores: of the same images, by name.
        frames: these images with their true types, for the 90 % bootstrap intervals over images; a type with
            one image has none, and without frames there are none but for all images together.
    """
    names = sorted({c for s in scores.values() for c in s.by_category})
    figure, (axes,) = style.figure(6.5, 3)
    width = 0.8 / max(len(scores), 1)
    shades = np.linspace(1.0, 0.45, len(scores))[::-1]
    images = {name: [f.id for f in frames if (f.category or "unknown") == name] for name in names}
    for place, (score, shade) in enumerate(zip(scores.values(), shades, strict=True)):
        values = [*(score.by_category.get(n, np.nan) for n in names), score.mean]
        colors = [*(style.color(n, names) for n in names), style.INK]
        where = np.arange(len(values)) + (place - (len(scores) - 1) / 2) * width
        bars = axes.bar(where, values, width * 0.92, color=[style.tint(c, shade) for c in colors])
        groups = [*(images[n] for n in names), list(score.by_image)]
        tops = [_whisker(axes, score, *bar) for bar in zip(where, values, groups, strict=True)]
        for bar, value, top in zip(bars, values, tops, strict=True):
            if not np.isnan(value):
                middle = bar.get_x() + bar.get_width() / 2
                axes.annotate(f"{value:.3f}", (middle, top), (0, 2), **_ABOVE)
    counts = [f"\n{style.count(len(images[n]), 'image')}" if images[n] else "" for n in names]
    axes.set_xticks(range(len(names) + 1), [*map("".join, zip(names, counts, strict=True)), "all"])
    axes.margins(y=0.15)
    axes.set_title("Competition metric, 90 % intervals over images")
    axes.set_xlabel("\n".join(wrap("bars: " + ", then ".join(scores), 80)))
    axes.grid(False, axis="x")
    return figure


_ABOVE: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}


def _whisker(axes: Axes, score: Score, where: float, value: float, images: Sequence[str]) -> float:
    """Draw the interval of the mean over images, if there are two or more, and return where it ends."""
    values = [score.by_image[name] for name in images if name in score.by_image]
    if len(values) < 2:
        return value
    low, high = interval(values)
    axes.plot([where, where], [low, high], color=style.INK, lw=1.2)
    return max(high, value)


@style.styled
def tuning(found: Tuning) -> Figure:
    """The metric of the images of each true type along the score threshold, on the images that were tuned on.

    What the chosen method uses is marked: a dot for each type where it has thresholds by type, a line where
    it has one threshold, and nothing where the expected gain chooses, which has none.
    """
    figure, (axes,) = style.figure(6.5, 3)
    names = sorted(found.curves.keys() - {"default"})
    used = found.config.score_threshold
    by_gain = bool(found.config.calibrations)
    for name in names:
        color, curve = style.color(name, names), found.curves[name]
        label = f"{name}, {style.count(found.frames[name], 'image')}"
        axes.plot(found.thresholds, curve, color=color, label=label)
        if not by_gain and len(used) > 1:
            best = found.config.for_category(name).score_threshold
            height = np.interp(best, found.thresholds, curve)
            axes.plot([best], [height], "o", color=color)
            axes.annotate(f"{best:.2f}", (best, height), (0, 5), **_ABOVE)
    if not by_gain and len(used) == 1:
        axes.axvline(used["default"], color=style.INK, lw=1, ls="--")
        text = f" {used['default']:.2f} for all types"
        axes.annotate(text, (used["default"], 1), xycoords=("data", "axes fraction"), va="top", fontsize=8)
    method = (
        "the chosen method, expected gain, uses no threshold" if by_gain else "chosen thresholds are marked"
    )
    axes.set_xlabel("score threshold")
    axes.set_title(f"Metric on the images that were tuned on, by true type;\n{method}")
    axes.set_ylim(0, 1.2 * max([max(curve) for curve in found.curves.values()] + [0.01]))
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
        axes.annotate(f"{row.mean:.3f}", (1.02, place), weight=weight, **style.MARGIN)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_title("Metric on images that had no part in the tuning, 90 % interval")
    style.legend(axes, ncols=max(len(names), 1), loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


@style.styled
def reliability(bins: Sequence[Bin]) -> Figure:
    """The share of instances that match a true cell, by their score, with 90 % intervals and counts.

    Args:
        bins: of ``instances.reliability``.
    """
    figure, (axes, below) = style.figure(4.8, 4.6, 2, 1, heights=(3, 1), share_x=True)
    scores = [each.score for each in bins]
    axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls="--", label="scores are probabilities")
    axes.vlines(scores, [each.low for each in bins], [each.high for each in bins], color="#0072B2", lw=1.6)
    axes.plot(scores, [each.matched for each in bins], "o", ms=5, color="#0072B2", label="instances")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share that matches")
    error = instances.calibration_error(bins)
    axes.set_title(f"Matches at IoU 0.5 by score; mean distance {error:.2f}")
    style.legend(axes, loc="upper left", fontsize=8)
    bars = below.bar(scores, [each.instances for each in bins], 0.06, color="#999999")
    below.bar_label(bars, [f"{each.instances:,}" for each in bins], fontsize=7, padding=1)
    below.margins(y=0.3)
    below.set_yticks([])
    below.set_ylabel("instances")
    below.set_xlabel("score")
    below.grid(False)
    return figure


@style.styled
def growth(found: Growth) -> Figure:
    """The score over the number of annotated training images, and how it may go on.

    Args:
        found: of ``growth.fit``.
    """
    figure, (axes,) = style.figure(6.5, 3.2)
    if len(found.curve):
        axes.fill_between(found.images, found.low, found.high, color=style.tint("#0072B2", 0.2), lw=0)
        most = found.points[-1].images
        for ahead, dashes, label in ((False, "-", "power law"), (True, "--", "if it goes on")):
            part = found.images >= most if ahead else found.images <= most
            axes.plot(found.images[part], found.curve[part], dashes, color="#0072B2", label=label)
    n = [point.images for point in found.points]
    axes.vlines(n, [p.low for p in found.points], [p.high for p in found.points], color=style.INK, lw=1.2)
    axes.plot(n, [p.score for p in found.points], "o", color=style.INK, label="trained, 90 % interval")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("annotated training images\n" + "\n".join(wrap(found.sentence, 90)))
    axes.set_title("Score by number of training images")
    style.legend(axes, fontsize=8, loc="lower right")
    return figure


#: Private scores: bounds of the medals and what the paper reached without and with pseudo labels.
_MEDALS = {"gold": (0.347, "#C9A227"), "silver": (0.33, "#8C8C8C"), "bronze": (0.319, "#A0612B")}
_PAPER = {"the paper, without pseudo labels": 0.326, "the paper, with pseudo labels": 0.338}
#: A cross-validated score is this much below that of the leaderboard, as participants report.
_ABOVE_CV = (0.02, 0.03)


@style.styled
def leaderboard(expected: float, low: float, high: float, competition: bool = True) -> Figure:
    """This run's expected score beside the paper's and the lines of the medals (the paper's figure 4b).

    The expected score is the cross-validated one, as it is, with its interval; participants' scores on the
    leaderboard were 0.02 to 0.03 above theirs.

    Args:
        expected: the cross-validated score.
        low: the lower end of its 90 % interval.
        high: its upper end.
        competition: whether the run's images are the competition's; a note says that others do not compare.
    """
    figure, (axes,) = style.figure(7, 2.4)
    names = [*_PAPER, "this run, cross-validated"]
    values = [*_PAPER.values(), expected]
    axes.barh(names, values, 0.6, color=["#D0D0D0", "#D0D0D0", "#56B4E9"])
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.3f}", (0, place), (5, 0), textcoords="offset points", va="center", weight="bold"
        )
    axes.errorbar([expected], [2], xerr=[[expected - low], [high - expected]], ecolor=style.INK, capsize=3)
    for name, (bound, color) in _MEDALS.items():
        axes.axvline(bound, color=color, lw=1.8, ls="--", label=f"{name}, {bound:.3f}")
    axes.set_ylim(2.5, -0.6)
    axes.grid(False, axis="y")
    note = f"others scored {_ABOVE_CV[0]} to {_ABOVE_CV[1]} more on the leaderboard than in cross-validation"
    if not competition:
        note = "these are not the competition's images: the scores do not compare"
    axes.set_xlabel(note, fontsize=8)
    axes.set_title("Private score beside the lines of the medals")
    style.legend(axes, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    return figure
