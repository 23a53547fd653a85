"""The network: its parts, and how its anchors fit the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import NullLocator, ScalarFormatter
from numpy.typing import NDArray

from kitlib.analysis import anchors
from kitlib.analysis.anchors import Fit
from kitlib.masks import rle
from kitlib.model.presets import Architecture
from kitlib.model.summary import Block
from kitlib.records import Frame
from kitlib.viz import style
from kitlib.viz.cells import draw, stretched

_FILL = {
    "backbone": "#CFE3F3",
    "pyramid": "#CDEBDD",
    "proposals": "#FBE3B5",
    "box": "#F3D3E1",
    "mask": "#E3DCF0",
}
# Width and height of a block, and the distance from one to the next.
_WIDTH, _HEIGHT = 1.5, 0.72
_ACROSS, _UP = 2.1, 1.0


@style.styled
def network(blocks: Sequence[Block]) -> Figure:
    """The network as it is built: backbone, pyramid, proposals and the cascade (the paper's figure 3a).

    Args:
        blocks: of ``kitlib.model.summary.summarise``.
    """
    figure, (axes,) = style.figure(12, 5)
    places = _places(blocks)
    for block in blocks:
        _block(axes, block, *places[block.name])
    for start, end in _arrows(blocks):
        _arrow(axes, places[start], places[end])
    x, y = np.array(list(places.values())).T
    axes.set_xlim(x.min() - 1, x.max() + 1)
    axes.set_ylim(y.min() - 0.6, y.max() + 0.6)
    total = sum(block.parameters for block in blocks)
    pooled = [block.name for block in blocks if block.kind == "pyramid" and block.parameters]
    heads = f"; boxes and masks are pooled from {pooled[0]} to {pooled[-1]}" if pooled else ""
    style.bare(axes, f"The network as built: {total / 1e6:.1f} M parameters; ch: channels{heads}")
    return figure


def _places(blocks: Sequence[Block]) -> dict[str, tuple[float, float]]:
    """The middle of each block: backbone and pyramid rise by stride, the cascade runs to the right."""
    heights: dict[int, float] = {}
    for stride in sorted({block.stride for block in blocks if block.stride is not None}):
        heights[stride] = (len(heights) + 1) * _UP
    places, column = {}, 3.0
    for block in blocks:
        if block.kind in ("backbone", "pyramid"):
            y = 0.0 if block.name == "stem" else heights[block.stride or 0]
            places[block.name] = (0.0 if block.kind == "backbone" else 1.0) * _ACROSS, y
        elif block.kind == "mask":
            x, y = places["box " + block.name.removeprefix("mask ")]
            places[block.name] = x, y - 1.6 * _UP
        else:
            places[block.name] = (column - 1) * _ACROSS, 3 * _UP
            column += 1
    return places


def _arrows(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """From where to where data flows."""
    kinds = {kind: [b for b in blocks if b.kind == kind] for kind in _FILL}
    names = {kind: [b.name for b in found] for kind, found in kinds.items()}
    arrows = [*pairwise(names["backbone"])]
    for block in kinds["pyramid"]:
        stage = [b.name for b in kinds["backbone"] if b.stride == block.stride and b.name != "stem"]
        arrows += [(name, block.name) for name in stage]
    lateral = [b.name for b in kinds["pyramid"] if b.parameters]
    arrows += [(high, low) for low, high in pairwise(lateral)]
    arrows += [(lateral[-1], name) for name in names["pyramid"] if name not in lateral]
    arrows += [(name, "proposals") for name in names["pyramid"]]
    chain = ["proposals", *names["box"]]
    arrows += [*pairwise(chain)]
    return arrows + [("box " + name.removeprefix("mask "), name) for name in names["mask"]]


def _block(axes: Axes, block: Block, x: float, y: float) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - _WIDTH / 2, y - _HEIGHT / 2),
            _WIDTH,
            _HEIGHT,
            boxstyle="round,pad=0.02",
            fc=_FILL[block.kind],
            ec="#888888",
        )
    )
    shape = f"{block.channels} ch" + (f", stride {block.stride}" if block.stride else "")
    size = f"{block.parameters / 1e6:.2f} M" if block.parameters else ""
    text = "\n".join(filter(None, [shape, ", ".join(filter(None, [block.detail, size]))]))
    axes.annotate(
        block.name, (x, y + 0.2), ha="center", va="center", weight="bold", fontsize=9, color="black"
    )
    axes.annotate(text, (x, y - 0.1), ha="center", va="center", fontsize=7, color="black")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    across, up = np.sign(end[0] - start[0]), np.sign(end[1] - start[1])
    side = np.array([_WIDTH / 2 + 0.03, 0]) if across else np.array([0, _HEIGHT / 2 + 0.03])
    direction = across if across else up
    axes.annotate(
        "",
        np.subtract(end, direction * side),
        np.add(start, direction * side),
        arrowprops={"arrowstyle": "->", "color": "#888888", "lw": 0.9},
    )


@style.styled
def anchor_fit(fits: Mapping[str, Fit], architecture: Architecture) -> Figure:
    """Cell sizes in the network's input beside strides and anchors, and how well the best anchors fit.

    Args:
        fits: of ``anchors.by_type``.
        architecture: the model's, with its anchors.
    """
    figure, (left, right) = style.figure(10, 3.2, 1, 2)
    names = sorted(name for name, fit in fits.items() if len(fit.iou))
    for name in names:
        _sizes(left, fits[name], name, style.color(name, names))
        _shares_by_iou(right, fits[name], name, style.color(name, names))
    _strides_and_sizes(left, sorted({size for level in architecture.anchor_sizes for size in level}))
    right.axvline(anchors.FITS, color=style.INK, lw=1, ls="--")
    right.set_xlim(0, 1)
    right.set_ylim(0, 1)
    right.yaxis.set_major_formatter("{x:.0%}")
    right.set_title("Cells whose best anchor has at least this IoU")
    for axes in (left, right):
        style.legend(axes, fontsize=8)
    return figure


def _sizes(axes: Axes, fit: Fit, name: str, color: str) -> None:
    """Draw a histogram of the cells' longer sides on a logarithmic axis."""
    sides = (fit.boxes[:, 2:] - fit.boxes[:, :2]).max(axis=1)
    edges = np.geomspace(max(sides.min(), 1), sides.max() + 1, 8 + round(len(sides) ** 0.4))
    heights = np.histogram(sides, edges)[0] / len(sides) / np.diff(np.log(edges))
    axes.stairs(heights, edges, color=color, lw=1.6, label=f"{name}, median {np.median(sides):.0f}")


def _shares_by_iou(axes: Axes, fit: Fit, name: str, color: str) -> None:
    """Draw the share of cells whose best anchor has at least each IoU."""
    values = np.sort(fit.iou)
    label = f"{name}, {(values >= anchors.FITS).mean():.0%} at {anchors.FITS} or more"
    axes.step(values, 1 - np.arange(len(values)) / len(values), color=color, label=label)


def _strides_and_sizes(axes: Axes, sizes: Sequence[float]) -> None:
    """Mark the strides of the feature maps and the sizes of the anchors on the axis of cell sizes."""
    for stride in anchors.STRIDES:
        axes.axvline(stride, color="#BBBBBB", lw=0.8, ls=":", zorder=0)
    axes.plot(sizes, np.zeros(len(sizes)), "^", ms=6, color=style.INK, clip_on=False, label="anchor sizes")
    axes.set_xscale("log")
    axes.set_xticks(sorted({*anchors.STRIDES, *sizes}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.set_title("Longer side of a cell in the network's input, pixels")
    axes.set_xlabel("dotted: strides of the feature maps")


@style.styled
def anchors_over_cells(
    frames: Sequence[Frame], architecture: Architecture, scales: Mapping[str, float], side: int = 200
) -> Figure:
    """The middle of frames with the boxes of cells and their best anchors.

    Cells whose best anchor has an IoU of 0.5 or more are green with the anchor dashed; the others are blue,
    and no proposal may come to them.

    Args:
        frames: with their true cells and images; one of each type serves.
        architecture: the model's, with its anchors.
        scales: as ``anchors.by_type``.
        side: of the part that is shown, in pixels of the frame.
    """
    figure, axes = style.figure(4 * max(len(frames), 1), 4.6, 1, max(len(frames), 1))
    for panel, frame in zip(axes, frames, strict=False):
        scale = scales.get(frame.category or "", scales["default"])
        boxes = rle.boxes([cell.mask for cell in frame.cells])
        fit = anchors.fit(boxes, architecture, scale)
        good = fit.iou >= anchors.FITS
        draw(panel, stretched(frame, step=1), [], [])
        for chosen, color in ((good, style.FOUND), (~good, style.MISSED)):
            panel.add_collection(LineCollection(_corners(boxes[chosen]), colors=color, linewidths=1.4))
            best = _corners(fit.anchors[chosen] / scale)
            panel.add_collection(LineCollection(best, colors=color, linewidths=0.9, linestyles="dashed"))
        x, y = max((frame.width - side) // 2, 0), max((frame.height - side) // 2, 0)
        panel.set_xlim(x, min(x + side, frame.width))
        panel.set_ylim(min(y + side, frame.height), y)
        share = f"{good.mean():.0%} of its cells have an anchor" if len(good) else "no cells"
        style.bare(panel, f"{frame.category or frame.id} at {scale:g}x: {share}")
    style.blank(axes[len(frames) :])
    figure.supxlabel(
        "solid: the cell's box; dashed: its best anchor; green: IoU of 0.5 or more, blue: less", fontsize=8
    )
    return figure


def _corners(boxes: NDArray) -> list[NDArray[np.float64]]:
    """The closed outlines of (N, 4) boxes."""
    return [np.array([(a, b), (c, b), (c, d), (a, d), (a, b)], float) for a, b, c, d in boxes]
