"""What ``kit score`` does: two files or folders of cells compared, as a table, JSON or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.data import tables
from kitlib.data.sources import Frames, Source, Table
from kitlib.errors import KitError
from kitlib.metric.comparison import Comparison, compare
from kitlib.metric.quality import Quality, Rates

# Beside predictions.csv, which has the instances before post-processing.
_FINAL = "out_of_fold.csv"


def open_source(path: Path) -> Source:
    """A file or folder of cells, whose format is found by looking.

    A file is a CSV table of the competition's kind or COCO JSON, without its images. A folder is one that
    ``kitlib.data.dataset.open_folder`` reads, or holds annotations without images: label images, Cellpose's
    files, COCO JSON, zips of ROIs. Of the formats that ``kit predict`` wrote side by side, the one that keeps
    most of a cell is taken: COCO JSON has overlap, types and scores, a label image neither, a ROI no hole.

    Raises:
        KitError: there is no such file or folder, its format is another one, or it cannot be read.
    """
    if path.is_dir():
        # Imported where they are needed: that takes longer than to read a table.
        from kitlib.data import annotations

        return annotations.open_annotations(path)
    if tables.is_table(path):
        return Table(path)
    if path.name.lower().endswith(".json"):
        from kitlib.data import coco

        return Frames(path, coco.read_alone(path))
    if not path.exists():
        raise KitError(f"{path} does not exist")
    raise KitError(f"{path} is neither a CSV table nor a COCO JSON file; name one of these, or a folder")


@dataclass(frozen=True)
class Scored:
    """Predictions that were compared with the truth.

    Attributes:
        comparison: the measures.
        notes: what was compared and what is doubtful, a sentence each.
    """

    comparison: Comparison
    notes: list[str]


def score(truth: Path, predicted: Path, predicted_only: bool = False) -> Scored:
    """Compare two files or folders in any format that ``kitlib.data.sources`` reads.

    Args:
        truth: annotated cells; its images are those that count.
        predicted: predicted cells; images are matched by id.
        predicted_only: leave out the true images without predictions; else their cells count as missed.

    Raises:
        KitError: one of them cannot be read, sizes differ, or a prediction is for an image without truth.
    """
    sides = open_source(truth), open_source(predicted)
    try:
        comparison = _compare(*sides, predicted_only, in_step=True)
    except tables.ScatteredRows:
        comparison = _compare(*sides, predicted_only, in_step=False)
    faults = [fault for side in sides for fault in side.faults]
    return Scored(comparison, [*_notes(comparison, sides[1].path, predicted_only), *faults])


def _compare(truth: Source, predicted: Source, predicted_only: bool, in_step: bool) -> Comparison:
    true_sizes = predicted.sizes() if truth.lacks_sizes else {}
    sizes = truth.sizes() if predicted.lacks_sizes else {}
    return compare(truth.frames(true_sizes, in_step), predicted.frames(sizes, in_step), predicted_only)


def _notes(comparison: Comparison, predicted: Path, predicted_only: bool) -> list[str]:
    notes = []
    missing = len(comparison.unpredicted)
    if missing:
        total = comparison.all.images + (missing if predicted_only else 0)
        missed = "all their cells count as missed; --predicted-only leaves them out"
        consequence = "they are left out" if predicted_only else missed
        notes.append(f"{missing} of {total} images have no predictions: {consequence}")
    if comparison.scored and comparison.overlap:
        share = f"{comparison.overlap:.1%}"
        notes.append(f"{share} of the predicted area lies in several cells{_final(predicted)}")
    return notes


def _final(predicted: Path) -> str:
    """What to score instead of a table of instances before post-processing."""
    if not tables.is_table(predicted):
        return ""
    final = predicted.with_name(_FINAL)
    named = f"{final}, which has" if final.is_file() else f"{_FINAL} or submission.csv, which have"
    return f", as in instances before post-processing; score {named} the final cells"


# ------------------------------------------------------------------------------------------ for readers

# Of the table by type: a measure's name for readers, its name in ``_flat``, and how its value is shown.
_MEASURES = (
    ("images", "images", "{:,}"),
    ("true cells", "cells", "{:,}"),
    ("predicted cells", "predicted", "{:,}"),
    ("the competition's metric", "map", "{:.4f}"),
    ("COCO AP, IoU 0.50 to 0.95", "coco_ap", "{:.4f}"),
    ("COCO AP, IoU 0.50", "coco_ap_50", "{:.4f}"),
    ("precision, IoU 0.50", "precision_0.50", "{:.4f}"),
    ("recall, IoU 0.50", "recall_0.50", "{:.4f}"),
    ("F1, IoU 0.50", "f1_0.50", "{:.4f}"),
    ("AP, IoU 0.50", "ap_0.50", "{:.4f}"),
    ("panoptic quality PQ", "pq", "{:.4f}"),
    ("  segmentation quality SQ", "sq", "{:.4f}"),
    ("  recognition quality RQ", "rq", "{:.4f}"),
    ("SEG", "seg", "{:.4f}"),
    ("split true cells", "split", "{:,}"),
    ("merging predictions", "merging", "{:,}"),
    ("error of the count, cells", "count_error", "{:.2f}"),
    ("  as a share", "count_error_relative", "{:.1%}"),
    ("error of the area, pixels", "area_error", "{:,.0f}"),
    ("  as a share", "area_error_relative", "{:.1%}"),
)
# Of the table by image: a column's head, and the measure, which is shown as in the table by type.
_IMAGE_COLUMNS = {
    **{"true": "cells", "predicted": "predicted", "metric": "map", "F1": "f1_0.50", "PQ": "pq", "SEG": "seg"},
    **{"split": "split", "merging": "merging"},
}
# Types side by side; further ones stand below.
_TYPES_A_LINE = 6


def text(scored: Scored, by: str) -> str:
    """The notes and one table.

    Args:
        scored: what ``score`` returned.
        by: "category", "threshold" or "image": the rows of the table, see ``kit score --help``.
    """
    comparison = scored.comparison
    if by == "threshold":
        blocks = [_grid(["IoU", *_RATE_NAMES], [_rate_row(rates) for rates in comparison.all.rates])]
    elif by == "image":
        rows = [
            [name, *_shown(quality, _IMAGE_COLUMNS.values())] for name, quality in comparison.by_image.items()
        ]
        blocks = [_grid(["image", *_IMAGE_COLUMNS], rows)]
    else:
        groups = [*comparison.by_type.items(), ("all", comparison.all)]
        starts = range(0, len(groups), _TYPES_A_LINE)
        blocks = [_type_table(dict(groups[start : start + _TYPES_A_LINE])) for start in starts]
    return "\n\n".join([*(["\n".join(scored.notes)] if scored.notes else []), *blocks])


def _type_table(groups: Mapping[str, Quality]) -> str:
    names = [name for _, name, _ in _MEASURES]
    columns = [_shown(quality, names) for quality in groups.values()]
    rows = [[label, *row] for (label, _, _), *row in zip(_MEASURES, *columns, strict=True)]
    return _grid(["", *groups], rows)


def _shown(quality: Quality, names: Iterable[str]) -> list[str]:
    values, styles = _flat(quality), {name: style for _, name, style in _MEASURES}
    return ["-" if values[name] is None else styles[name].format(values[name]) for name in names]


_RATE_NAMES = ("precision", "recall", "f1", "ap", "tp", "fp", "fn")


def _rate_row(rates: Rates) -> list[str]:
    values = [getattr(rates, name) for name in _RATE_NAMES]
    cells = ["-" if v is None else f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for v in values]
    return [f"{rates.threshold:.2f}", *cells]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first one flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(w) if n == 0 else cell.rjust(w)
            for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )
    return "\n".join(line.rstrip() for line in lines)


# ------------------------------------------------------------------------------------------ for programs


def check_out(path: Path) -> None:
    """Refuse a file that ``write`` does not write.

    Raises:
        KitError: it ends neither in .json nor in .csv.
    """
    if path.suffix.lower() not in (".json", ".csv"):
        raise KitError(f"--out {path} must end in .json or .csv")


def write(path: Path, scored: Scored) -> None:
    """Write all measures: ``document`` as JSON, or as CSV a row for all cells, each type and each image."""
    if path.suffix.lower() == ".json":
        files.write_json(path, document(scored))
        return
    found = scored.comparison
    groups = [("all", "", found.all), *(("type", *item) for item in found.by_type.items())]
    rows = [{"of": kind, "name": name, **_flat(quality)} for kind, name, quality in groups]
    rows += [{"of": "image", "name": name, **_flat(quality)} for name, quality in found.by_image.items()]
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def document(scored: Scored) -> dict[str, Any]:
    """All measures for JSON: ``map``, ``notes``, ``all``, ``by_type``, ``by_image`` and ``unpredicted``."""
    found = scored.comparison
    parts = {"by_type": found.by_type, "by_image": found.by_image}
    return {
        "map": found.all.map,
        "notes": scored.notes,
        "all": _nested(found.all),
        **{key: {name: _nested(quality) for name, quality in part.items()} for key, part in parts.items()},
        "unpredicted": list(found.unpredicted),
    }


def _nested(quality: Quality) -> dict[str, Any]:
    return {**asdict(quality), "rates": [rates._asdict() for rates in quality.rates]}


def _flat(quality: Quality) -> dict[str, Any]:
    """The measures by name; those at an IoU threshold as ``f1_0.50``."""
    row = {name: value for name, value in asdict(quality).items() if name != "rates"}
    for rates in quality.rates:
        row |= {f"{name}_{rates.threshold:.2f}": getattr(rates, name) for name in _RATE_NAMES}
    return row
