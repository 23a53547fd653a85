"""The style that all figures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

#: A colour for each cell type of the competition, from Okabe and Ito's palette for the colour-blind.
COLORS = {"astro": "#D55E00", "cort": "#0072B2", "shsy5y": "#009E73"}
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999999", "#117733", "#882255", "#44AA99", "#332288")

#: Cells that were predicted and exist (green), were predicted only (orange), exist only (blue); areas that
#: training ignores (yellow). Of Okabe and Ito's palette, too.
FOUND, WRONG, MISSED, IGNORED = "#009E73", "#D55E00", "#56B4E9", "#F0E442"

#: The largest width or height of a figure, in inches.
_LONGEST = 60.0

INK = "#333333"

#: Text to the right of axes, in the row of a bar.
MARGIN: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}

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


def figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row.

    Args:
        width: in inches, at most ``_LONGEST``; larger values are reduced to it.
        height: as ``width``.
        rows: of axes.
        columns: of axes.
        heights: of the rows, relative to one another; None for equal ones.
        share_x: whether the axes of a column share their x axis.
    """
    made = Figure(figsize=(min(width, _LONGEST), min(height, _LONGEST)), layout="constrained")
    sharing: Literal["col", "none"] = "col" if share_x else "none"
    return made, list(
        made.subplots(rows, columns, squeeze=False, height_ratios=heights, sharex=sharing).ravel()
    )


def color(category: str, categories: Iterable[str] = ()) -> str:
    """The colour of a cell type; one outside the competition has it by its rank in ``categories``."""
    if category in COLORS:
        return COLORS[category]
    known = sorted(set(categories) | {category})
    return OTHERS[known.index(category) % len(OTHERS)]


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """An opaque colour mixed with white; a strength of 1 leaves it as it is."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def ink_on(color: str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    red, green, blue = to_rgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def short_names(names: Sequence[str], length: int = 24) -> list[str]:
    """Names cut to a length that tell as many of them apart as the whole names do.

    What all of them begin and end with goes first, then the middle of what is left; names of which several
    would still be shown alike are numbered.

    Args:
        names: to be shown side by side.
        length: the most characters of each, at least 8, without its number.
    """
    if max(map(len, names), default=0) <= length:
        return list(names)
    several = len(set(names)) > 1
    begin = _common_start(names) if several else 0
    end = _common_start([name[begin:][::-1] for name in names]) if several else 0
    shown = [_cut(name, begin, len(name) - end, length) for name in names]
    # Each text once for every different name that was cut to it.
    counts = Counter(text for text, _ in set(zip(shown, names, strict=True)))
    return [f"{text} #{place}" if counts[text] > 1 else text for place, text in enumerate(shown, 1)]


def _common_start(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    # Names in between begin with what the first and the last share.
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(last)))


def _cut(name: str, first: int, last: int, length: int) -> str:
    """A name from ``first`` to ``last`` and as much around it as fits."""
    if len(name) <= length:
        return name
    if last - first > length - 2:
        half = (length - 2) // 2
        middle = f"{name[first : first + half]}…{name[last - half : last]}"
        return middle if first == 0 else f"…{middle}"[:length]
    first = max(min(first, len(name) - length + 1), 0)
    last = min(first + length - 2, len(name))
    return f"{'…' if first else ''}{name[first:last]}{'…' if last < len(name) else ''}"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 cell", "2 cells", "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def median(values: NDArray) -> str:
    """The median of whole numbers, exactly: it may end in .5."""
    return f"{np.median(values):,.1f}".removesuffix(".0")


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
