"""What a data set contains: types, numbers of cells, sizes, folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.records import Frame
from kitlib.viz import style


@style.styled
def types(frames: Sequence[Frame]) -> Figure:
    """Images and cells of each type."""
    figure, (left, right) = style.figure(8, 2.4, 1, 2)
    images = Counter(_type(f) for f in frames)
    cells = Counter(c.category for f in frames for c in f.cells)
    for axes, counts, title in ((left, images, "Images by type"), (right, cells, "Cells by type")):
        names = sorted(counts, reverse=True)
        colors = [style.color(name, names) for name in names]
        bars = axes.barh(names, [counts[n] for n in names], height=0.6, color=colors)
        axes.bar_label(bars, labels=[f"{counts[n]:,}" for n in names], padding=3)
        axes.set_title(title)
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(False, axis="y")
    return figure


@style.styled
def cells_per_image(frames: Sequence[Frame]) -> Figure:
    """Distribution of the number of cells in an image, by type; each image is a dot."""
    figure, (axes,) = style.figure(8, 2.6)
    names = sorted({_type(f) for f in frames}, reverse=True)
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        numbers = np.array([len(f.cells) for f in frames if _type(f) == name])
        jitter = rng.uniform(-0.18, 0.18, len(numbers))
        axes.plot(numbers, place + jitter, "o", ms=4, alpha=0.5, mec="none", color=style.color(name, names))
        axes.plot([np.median(numbers)] * 2, [place - 0.32, place + 0.32], color=style.INK)
        label = f" median {style.median(numbers)}"
        axes.annotate(label, (np.median(numbers), place + 0.32), fontsize=8, va="bottom")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_title("Cells in an image")
    return figure


@style.styled
def cell_sizes(frames: Sequence[Frame]) -> Figure:
    """Distributions of cell area and of the longer side of a cell's box, by type, on logarithmic axes."""
    figure, (left, right) = style.figure(8, 2.8, 1, 2)
    names = sorted({c.category for f in frames for c in f.cells})
    for name in names:
        masks = [c.mask for f in frames for c in f.cells if c.category == name]
        boxes = rle.boxes(masks)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        for axes, values in ((left, rle.areas(masks)), (right, sides)):
            _share(axes, values, f"{name}, median {style.median(values)}", style.color(name, names))
    for axes, title in ((left, "Cell area, pixels"), (right, "Longer side of a cell, pixels")):
        axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_yticks([])
        axes.set_title(title)
        style.legend(axes, fontsize=8)
    return figure


def _share(axes: Axes, values: NDArray[np.int64], label: str, color: str) -> None:
    """Draw a histogram of whole numbers on a logarithmic axis; areas are proportional to numbers of cells."""
    edges = np.geomspace(max(values.min(), 1), values.max() + 1, 10 + round(len(values) ** 0.4))
    # Edges halfway between whole numbers, so that a bin's width says how many values it has.
    edges = np.unique(np.round(edges)) - 0.5
    heights, _ = np.histogram(values, edges)
    axes.stairs(heights / len(values) / np.diff(np.log(edges)), edges, label=label, color=color, lw=1.6)


@style.styled
def folds(frames: Sequence[Frame], assigned: Mapping[str, int]) -> Figure:
    """Images of each type in each fold, stacked."""
    figure, (axes,) = style.figure(8, 2.6)
    numbers = sorted(set(assigned.values()))
    names = sorted({_type(f) for f in frames})
    bottom = np.zeros(len(numbers))
    for name in names:
        counts = Counter(assigned[f.id] for f in frames if _type(f) == name)
        heights = np.array([counts[n] for n in numbers])
        bars = axes.bar(numbers, heights, 0.6, bottom, label=name, color=style.color(name, names))
        axes.bar_label(
            bars, [str(h) if h else "" for h in heights], label_type="center", color="white", fontsize=8
        )
        bottom += heights
    axes.set_xticks(numbers, [f"fold {n}" for n in numbers])
    axes.set_title("Images by fold and type")
    style.legend(axes, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(False, axis="x")
    return figure


def _type(frame: Frame) -> str:
    return frame.category or "unknown"
