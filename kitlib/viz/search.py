"""What a search for parameters found: the scores of its trials, over time and over each parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from kitlib.viz import style


@style.styled
def search_history(trials: pd.DataFrame) -> Figure:
    """The score of each trial, and the best until then; trials that were stopped early are hollow.

    Args:
        trials: a row a trial, by number from 1: ``score``, NaN where it failed, and ``state``, "complete" or
            "pruned", of which the score is that of its last evaluation.
    """
    figure, (axes,) = style.figure(7, 3)
    done = trials[trials["state"] == "complete"]
    _dots(axes, trials, trials.index)
    best = done["score"].cummax()
    axes.step(best.index, best, where="post", color=style.INK, label="best until then")
    if len(done):
        top = done["score"].idxmax()
        axes.annotate(
            f"{best.max():.3f}",
            (top, best.max()),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    axes.set_xlabel("trial")
    axes.set_title("Validation score of each trial")
    style.legend(axes, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@style.styled
def search_slices(trials: pd.DataFrame, logarithmic: Sequence[str] = ()) -> Figure:
    """The score over the value of each parameter, a panel a parameter.

    Args:
        trials: as ``search_history`` takes them, with a column for each parameter, its name beginning with
            the stage: numbers, or texts where it was one of several values.
        logarithmic: the columns of which the values were tried evenly in the logarithm.
    """
    names = [name for name in trials.columns if "." in name]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, panels = style.figure(3.2 * columns + 0.6, 2.7 * rows, rows, columns)
    for axes, name in zip(panels, names, strict=False):
        values = trials[name]
        if pd.api.types.is_numeric_dtype(values):
            _dots(axes, trials, values)
            if name in logarithmic:
                _logarithmic(axes, values)
        else:
            choices = sorted(set(values))
            _dots(axes, trials, values.map(choices.index))
            axes.set_xticks(range(len(choices)), style.short_names(choices, 14))
            axes.margins(x=0.2)
        axes.set_title(name.partition(".")[2])
    style.blank(panels[len(names) :])
    for axes in panels[::columns]:
        axes.set_ylabel("validation score")
    return figure


def _logarithmic(axes: Axes, values: pd.Series) -> None:
    """Make the axis logarithmic, with three labels to a decade where there are few decades."""
    axes.set_xscale("log")
    few = values.max() < 30 * values.min()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dots(axes: Axes, trials: pd.DataFrame, where: pd.Series | pd.Index) -> None:
    """A dot for each trial: filled, or hollow where it was stopped early."""
    color = style.COLORS["cort"]
    for state, face, label in (("complete", color, "trial"), ("pruned", "white", "stopped early")):
        chosen = np.asarray(trials["state"] == state)
        if chosen.any():
            x, y = np.asarray(where)[chosen], trials["score"][chosen]
            axes.plot(x, y, "o", ms=5, mfc=face, mec=color, ls="none", label=label)
