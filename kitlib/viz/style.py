"""The look that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

#: One colour a cell type, told apart also by the colour-blind (Okabe and Ito's palette).
COLORS = {"astro": "#D55E00", "cort": "#0072B2", "shsy5y": "#009E73"}
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999999", "#117733", "#882255", "#44AA99", "#332288")

#: What a prediction turned out to be.
FOUND, WRONG, MISSED = "#2CA25F", "#E34A33", "#3182BD"

#: The largest width or height of a figure, in inches: what is asked for above it is drawn smaller.
LONGEST = 60.0

INK = "#333333"

RC = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#EBEBEB",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


P, T = ParamSpec("P"), TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Let a function draw with the kit's look, leaving matplotlib's settings as they were."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row; width and height in inches, each ``LONGEST`` at most."""
    made = Figure(figsize=(min(width, LONGEST), min(height, LONGEST)), layout="constrained")
    return made, list(made.subplots(rows, columns, squeeze=False).ravel())


def color(category: str, categories: Iterable[str] = ()) -> str:
    """The colour of a cell type; others than the competition's by their place in ``categories``."""
    if category in COLORS:
        return COLORS[category]
    known = sorted(set(categories) | {category})
    return OTHERS[known.index(category) % len(OTHERS)]


def tint(color: str, strength: float) -> tuple[float, ...]:
    """A colour mixed with white; it hides what is behind it, which a transparent one does not."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))


def legend(axes: Axes, **options: Any) -> None:
    """A legend, where there is anything to name."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**options)


def bare(axes: Axes, title: str = "") -> None:
    """Axes for an image: no ticks, no frame."""
    axes.set_title(title, fontsize=9)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def blank(axes: Iterable[Axes]) -> None:
    """Hide axes that have nothing to show."""
    for each in axes:
        each.set_axis_off()
