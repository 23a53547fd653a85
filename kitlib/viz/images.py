"""The images: their quality, their grey levels, near duplicates, and data sets beside one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from kitlib.analysis.images import Pair, Quality
from kitlib.masks import rle
from kitlib.records import Frame
from kitlib.viz import style
from kitlib.viz.cells import stretched

_MEASURES = {"focus": "Focus", "contrast": "Contrast, grey levels", "gradient": "Unevenness of the light"}
#: Groups with a row of their own; the smallest ones share the last row.
_MOST_GROUPS = 20
_PAIRS = 4


@style.styled
def image_quality(qualities: Sequence[Quality], groups: Mapping[str, str], flagged: int = 3) -> Figure:
    """Focus, contrast and illumination of the images of each group; the worst images are named.

    Args:
        qualities: of ``images.quality``.
        groups: what each image belongs to, by its id: a plate, a day, a type. Others are of group "unknown".
        flagged: how many of the least sharp, the flattest and the most unevenly lit images are named.
    """
    rows: dict[str, list[Quality]] = defaultdict(list)
    for each in qualities:
        rows[groups.get(each.frame_id, "unknown")].append(each)
    ranked = sorted(rows, key=lambda name: (-len(rows[name]), name))
    for name in ranked[_MOST_GROUPS:]:
        rows[f"{len(ranked) - _MOST_GROUPS} smaller groups"] += rows.pop(name)
    names = sorted(rows, reverse=True)
    figure, axes = style.figure(12, 1.5 + 0.35 * len(names), 1, len(_MEASURES))
    rng = np.random.default_rng(0)
    for panel, (measure, title) in zip(axes, _MEASURES.items(), strict=True):
        values = {name: np.array([getattr(each, measure) for each in rows[name]]) for name in names}
        for place, name in enumerate(names):
            jitter = rng.uniform(-0.2, 0.2, len(values[name]))
            panel.plot(values[name], place + jitter, "o", ms=4, alpha=0.6, mec="none", color="#0072B2")
            panel.plot([np.median(values[name])] * 2, [place - 0.32, place + 0.32], color=style.INK)
        kind, sign = ("largest", -1) if measure == "gradient" else ("lowest", 1)
        order = np.argsort([sign * getattr(each, measure) for each in qualities], kind="stable")
        worst = [qualities[place] for place in order[:flagged]]
        shown = style.short_names([each.frame_id for each in worst], 14)
        panel.set_xlabel(f"{kind}: {', '.join(shown)}", fontsize=8)
        panel.set_title(title)
        panel.set_yticks(range(len(names)), _with_counts(names, rows) if panel is axes[0] else [])
        panel.set_ylim(-0.6, max(len(names), 1) - 0.4)
        panel.set_xlim(left=0)
    return figure


def _with_counts(names: Sequence[str], rows: Mapping[str, Sequence[Quality]]) -> list[str]:
    short = style.short_names(names, 28)
    return [f"{text} ({len(rows[name])})" for text, name in zip(short, names, strict=True)]


@style.styled
def near_duplicates(frames: Sequence[Frame], pairs: Sequence[Pair], fold: Mapping[str, int]) -> Figure:
    """The most similar pairs of images, side by side, with their folds.

    Args:
        frames: with their images; those of the pairs are among them.
        pairs: of ``images.near_duplicates``, the most similar first.
        fold: of each id, where it is in one.
    """
    shown = pairs[:_PAIRS]
    if not shown:
        figure, (blank,) = style.figure(6, 0.6)
        style.blank([blank])
        blank.set_title(f"No near duplicates among {style.count(len(frames), 'image')}")
        return figure
    by_id = {frame.id: frame for frame in frames}
    figure, axes = style.figure(7, 2.9 * len(shown), len(shown), 2)
    for row, pair in enumerate(shown):
        for panel, name in zip(axes[2 * row : 2 * row + 2], (pair.first, pair.second), strict=True):
            panel.imshow(stretched(by_id[name]), cmap="gray", vmin=0, vmax=255)
            place = f"fold {fold[name]}" if name in fold else "not in a fold"
            style.bare(panel, f"{style.short_names([name])[0]}, {place}\nsimilarity {pair.similarity:.2f}")
    return figure


@style.styled
def grey_levels(levels: Mapping[str, NDArray[np.float64]]) -> Figure:
    """The grey levels of sets of images, such as labelled and unlabelled ones of each type.

    Args:
        levels: by name the shares of ``images.grey_levels``.
    """
    figure, (axes,) = style.figure(6.5, 2.8)
    palette = ["#0072B2", "#D55E00", *style.OTHERS]
    for place, (name, shares) in enumerate(levels.items()):
        mean = float(shares @ np.arange(256))
        spread = float(shares @ (np.arange(256) - mean) ** 2) ** 0.5
        dashes = ("-", "--", ":", "-.")[place % 4]
        label = f"{name}, {mean:.0f} ± {spread:.0f}"
        axes.plot(np.arange(256), shares, dashes, color=palette[place % len(palette)], label=label)
    used = np.flatnonzero(np.sum(list(levels.values()), axis=0) > 1e-3) if levels else np.zeros(0, int)
    if len(used):
        axes.set_xlim(used[0] - 2, used[-1] + 2)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.set_xlabel("grey level")
    axes.set_title("Grey levels, share of pixels (mean ± standard deviation)")
    style.legend(axes, fontsize=8)
    return figure


@style.styled
def compare_sets(sets: Mapping[str, Sequence[Frame]]) -> Figure:
    """Sizes of cells and how crowded the images are, in several sets of frames, such as LIVECell beside the
    competition's types.

    Args:
        sets: annotated frames by name.
    """
    figure, (left, right) = style.figure(10, 3, 1, 2)
    palette = {name: style.color(name, sets) for name in sets}
    for name, frames in sets.items():
        areas = rle.areas([cell.mask for frame in frames for cell in frame.cells])
        if not len(areas):
            continue
        per_megapixel = [1e6 * len(f.cells) / (f.height * f.width) for f in frames if f.cells]
        density = np.array(per_megapixel)
        medians = style.median(areas), f"{np.median(density):,.0f}"
        for axes, values, median in zip((left, right), (areas, density), medians, strict=True):
            ordered = np.sort(values)
            share = np.arange(1, len(ordered) + 1) / len(ordered)
            axes.step(ordered, share, where="post", color=palette[name], label=f"{name}, median {median}")
    for axes, title in ((left, "Cell area, pixels"), (right, "Cells in a megapixel, by image")):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_ylim(0, 1)
        axes.set_title(f"{title}; share up to")
        axes.tick_params(axis="x", labelrotation=30)
        style.legend(axes, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure
