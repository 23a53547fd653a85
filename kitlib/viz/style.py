"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

#: A colour for each cell type of the competition, from Okabe and Ito's palette for the colour-blind.
COLORS = {"astro": "#D55E00", "cort": "#0072B2", "shsy5y": "#009E73"}
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999999", "#117733", "#882255", "#44AA99", "#332288")

#: Cells that were predicted and exist, were predicted only, exist only.
FOUND, WRONG, MISSED = "#2CA25F", "#E34A33", "#3182BD"

#: The largest width or height of a figure, in inches.
_LONGEST = 60.0

INK = "#333333"

_RC: dict[RcKeyType, Any] = {
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


_P = ParamSpec("_P")
T = TypeVar("T")


def styled(draw: Callable[_P, T]) -> Callable[_P, T]:
    """Decorate a function that draws, so that ``_RC`` applies in it and nowhere else."""

    @wraps(draw)
    def inside(*args: _P.args, **kwargs: _P.kwargs) -> T:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return inside


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row.

    Args:
        width: in inches, at most ``_LONGEST``; larger values are reduced to it.
        height: as ``width``.
        rows: of axes.
        columns: of axes.
    """
    made = Figure(figsize=(min(width, _LONGEST), min(height, _LONGEST)), layout="constrained")
    return made, list(made.subplots(rows, columns, squeeze=False).ravel())


def color(category: str, categories: Iterable[str] = ()) -> str:
    """The colour of a cell type; one outside the competition has it by its rank in ``categories``."""
    if category in COLORS:
        return COLORS[category]
    known = sorted(set(categories) | {category})
    return OTHERS[known.index(category) % len(OTHERS)]


def tint(color: str, strength: float) -> tuple[float, ...]:
    """An opaque colour mixed with white; a strength of 1 leaves it as it is."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))


def legend(axes: Axes, **options: Any) -> None:
    """Add a legend, unless no artist has a label."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**options)


def bare(axes: Axes, title: str = "") -> None:
    """Turn axes into those of an image: no ticks, no frame."""
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
