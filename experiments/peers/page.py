"""docs/peers.md: its table and its figure, from tests/benchmarks/results/peers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from kitlib.files import atomic, write_text

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "tests" / "benchmarks" / "results" / "peers"
PAGE = _ROOT / "docs" / "peers.md"
FIGURE = _ROOT / "docs" / "pictures" / "peers.png"
BEGIN, END = "<!-- results of tests/benchmarks/results/peers -->\n", "<!-- end of the results -->\n"
# Colours that are told apart without colour vision, and markers that are told apart without colours.
STYLES = {
    "kitlib": ("kitlib", "#0072b2", "o"),
    "cellpose": ("Cellpose 3", "#d55e00", "s"),
    "stardist": ("StarDist", "#009e73", "^"),
    "torchvision": ("torchvision", "#cc79a7", "D"),
    "detectron2": ("detectron2", "#666666", "v"),
}


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results by data set and tool, the kit first."""
    found = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: (result["data"], list(STYLES).index(result["tool"])))


def render(results: list[dict[str, Any]]) -> str:
    """The table of the longest trainings and the versions, in Markdown."""
    if not results:
        return "Not measured yet.\n"
    head = ("data", "tool", "CPU minutes", "score", "by type", "COCO AP", "seconds an image", "chosen")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_row(result)) + " |" for result in results]
    lines += ["", f"![Score over CPU minutes of training](pictures/{FIGURE.name})", "", "Versions:", ""]
    packages = {result["tool"]: result["versions"] for result in results}
    lines += [f"- {STYLES[tool][0]}: {_versions(found)}." for tool, found in packages.items()]
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any]) -> list[str]:
    point = result["points"][-1]
    by_type = ", ".join(f"{name} {value:.3f}" for name, value in point["by_type"].items())
    seconds = point["seconds_an_image"]
    return [
        f"{result['data']}, {result['validation_images']} validation images",
        STYLES[result["tool"]][0],
        f"{point['cpu_minutes']:.0f}",
        f"{point['score']:.3f} ({point['low']:.3f} to {point['high']:.3f})",
        by_type if len(point["by_type"]) > 1 else "",
        f"{point['coco_ap']:.3f}",
        "" if seconds is None else f"{seconds:.1f}",
        point["setting"],
    ]


def _versions(found: dict[str, str]) -> str:
    left_out = ("machine", "memory", "GPUs", "system")
    return ", ".join(f"{name} {value}" for name, value in found.items() if name not in left_out)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Score over CPU minutes, a panel for each data set, with 90 % intervals at the end of each curve."""
    sets = {result["data"]: result["validation_images"] for result in results}
    figure, axes = plt.subplots(1, len(sets), figsize=(4.6 * len(sets), 3.6), squeeze=False)
    for ax, (name, count) in zip(axes[0], sets.items(), strict=True):
        for number, result in enumerate(each for each in results if each["data"] == name):
            label, colour, marker = STYLES[result["tool"]]
            points, last = result["points"], result["points"][-1]
            minutes, scores = ([point[key] for point in points] for key in ("cpu_minutes", "score"))
            ax.plot(minutes, scores, color=colour, marker=marker, markersize=5, label=label)
            # Beside one another, where several trainings end at the same time.
            place = last["cpu_minutes"] * (1 + 0.012 * number)
            ax.plot([place, place], [last["low"], last["high"]], color=colour, alpha=0.4, linewidth=2)
        ax.set(title=f"{name}, {count} validation images", xlabel="CPU minutes of training")
        ax.set(xlim=(0, None), ylim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("score on validation images")
    lines = {line.get_label(): line for ax in axes[0] for line in ax.get_legend_handles_labels()[0]}
    shown = [name for name, _, _ in STYLES.values() if name in lines]
    axes[0, -1].legend([lines[name] for name in shown], shown, frameon=False, bbox_to_anchor=(1.0, 1.0))
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def write() -> None:
    """Bring the page and its figure up to date."""
    results = read()
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n{render(results)}\n{END}{rest.partition(END)[2]}")
    if results:
        draw(results, FIGURE)
