"""Cells scored from files: every format gives the same numbers for the same cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kitlib import export, scoring
from kitlib.data import coco, competition, tables
from kitlib.data.labels import read_labels
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.metric.quality import Quality
from kitlib.records import Cell, Frame

HEIGHT, WIDTH = 60, 80


def squares(
    name: str, *corners: tuple[int, int], side: int = 12, kind: str = "cort", scored: bool = True
) -> Frame:
    cells = (
        Cell(
            rle.from_crop(np.ones((side, side)), x, y, HEIGHT, WIDTH), kind, 0.9 - n / 10 if scored else None
        )
        for n, (x, y) in enumerate(corners)
    )
    return Frame(name, None, HEIGHT, WIDTH, tuple(cells), kind)


TRUTH = [
    squares("a", (0, 0), (20, 0), (40, 20), scored=False),
    squares("b", (5, 5), (30, 30), kind="astro", scored=False),
    squares("c", scored=False),
]
#: A cell as it is, one moved, one cut off; of the second image one cell and a wrong one.
FOUND = [
    squares("a", (0, 0), (22, 1), (46, 26)),
    squares("b", (7, 5), (60, 40), kind="astro"),
    squares("c"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOUND and TRUTH in every format: files and folders of their names."""
    folder = tmp_path_factory.mktemp("exported")
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    for side, frames in (("found", FOUND), ("truth", TRUTH)):
        written = [export.write(export.Result(frame, image), folder / side) for frame in frames]
        export.join(folder / side, written)
        tables.write_predictions(folder / side / "predictions.csv", frames)
    return folder


NAMES = ("predictions.csv", "annotations.json", "coco", "labels", "rois", "")


def measures(quality: Quality) -> dict:
    """What does not need scores."""
    left = {"coco_ap", "coco_ap_50"}
    return {name: value for name, value in vars(quality).items() if name not in left}


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_predictions_gives_the_same_numbers(exported: Path, name: str) -> None:
    truth = tables.write_annotations(exported / "truth.csv", TRUTH[:2])
    reference = scoring.score(truth, _without_c(exported / "found" / "predictions.csv"))
    path = exported / "found" / name
    if name in ("predictions.csv", "annotations.json"):
        assert scoring.score(exported / "truth" / name, path).comparison.by_type.keys() == {"astro", "cort"}
    found = scoring.score(exported / "truth" / "annotations.json", path).comparison
    assert measures(found.by_type["cort"]) == measures(reference.comparison.by_type["cort"])
    assert measures(found.by_type["astro"]) == measures(reference.comparison.by_type["astro"])
    assert found.all.images == 3
    assert found.by_image["c"].map == 1.0


def _without_c(path: Path) -> Path:
    """train.csv cannot name an image without cells, so predictions for it would be refused."""
    frames = [frame for frame in tables.read_cells(path) if frame.id != "c"]
    return tables.write_predictions(path.with_name("two.csv"), frames)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_the_truth_gives_the_same_numbers(exported: Path, name: str) -> None:
    found = exported / "found" / "predictions.csv"
    reference = scoring.score(exported / "truth" / "annotations.json", found).comparison
    result = scoring.score(exported / "truth" / name, found).comparison
    assert measures(result.all) == measures(reference.all)
    assert {k: measures(q) for k, q in result.by_image.items()} == {
        k: measures(q) for k, q in reference.by_image.items()
    }


def test_scores_come_back_from_tables_and_coco_files(exported: Path) -> None:
    truth = exported / "truth" / "annotations.json"
    by_table, by_coco, by_labels = (
        scoring.score(truth, exported / "found" / name).comparison
        for name in ("predictions.csv", "annotations.json", "labels")
    )
    assert by_table.all.coco_ap == by_coco.all.coco_ap > 0
    assert by_labels.all.coco_ap is None


def test_rois_against_rois_need_a_size(exported: Path) -> None:
    with pytest.raises(KitError, match="does not say how large its image 'a' is, nor does the other side"):
        scoring.score(exported / "truth" / "rois", exported / "found" / "rois")
    assert (
        scoring.score(exported / "truth" / "rois", exported / "found" / "labels").comparison.all.images == 3
    )


def test_a_table_whose_rows_are_scattered(exported: Path, tmp_path: Path) -> None:
    found = exported / "found" / "predictions.csv"
    head, *rows = found.read_text().splitlines()
    scattered = tmp_path / "scattered.csv"
    scattered.write_text("\n".join([head, *rows[::2], *rows[1::2]]))
    truth = exported / "truth" / "annotations.json"
    assert scoring.score(truth, scattered).comparison == scoring.score(truth, found).comparison


OVERLAPPING = [squares("a", (0, 0), (6, 0))]


def test_instances_before_post_processing_are_noticed(tmp_path: Path) -> None:
    """Two squares of 144 pixels share 72: 72 of 288."""
    truth = tables.write_annotations(tmp_path / "train.csv", TRUTH[:1])
    found = tables.write_predictions(tmp_path / "predictions.csv", OVERLAPPING)
    (note,) = scoring.score(truth, found).notes
    assert note == (
        "25.0% of the predicted area lies in several cells, as in instances before post-processing; "
        "score out_of_fold.csv or submission.csv, which have the final cells"
    )
    final = tables.write_predictions(tmp_path / "out_of_fold.csv", FOUND[:1])
    (note,) = scoring.score(truth, found).notes
    assert f"score {final}, which has the final cells" in note
    assert scoring.score(truth, final).notes == []
    (note,) = scoring.score(truth, coco.write(tmp_path / "cells.json", OVERLAPPING)).notes
    assert note == "25.0% of the predicted area lies in several cells"


def test_many_types_stand_below_each_other(tmp_path: Path) -> None:
    frames = [squares(name, (0, 0), kind=f"type {name}") for name in "abcdefgh"]
    path = tables.write_predictions(tmp_path / "cells.csv", frames)
    first, second = scoring.text(scoring.score(path, path), "category").split("\n\n")
    assert first.split()[:2] == ["type", "a"]
    assert second.splitlines()[0].split() == ["type", "g", "type", "h", "all"]
    assert max(map(len, first.splitlines())) <= 100


def test_real_images_in_two_formats(real_competition: Path, tmp_path: Path) -> None:
    """True cells as label images, in which each pixel has one cell, against themselves as a table."""
    frames = [replace(frame, id=frame.id) for frame in competition.labelled(real_competition)[:3]]
    for frame in frames:
        blank = np.zeros((frame.height, frame.width), np.uint8)
        export.write(export.Result(frame, blank), tmp_path, ["labels", "coco"])
    flat = [
        replace(frame, cells=tuple(Cell(mask, "cort") for mask in rle.from_labels(labels)), category="cort")
        for frame in frames
        for labels in [read_labels(tmp_path / "labels" / f"{frame.id}.png")]
    ]
    truth = tables.write_annotations(tmp_path / "truth.csv", frames)
    table = scoring.score(truth, tables.write_predictions(tmp_path / "flat.csv", flat)).comparison
    images = scoring.score(truth, tmp_path / "labels").comparison
    assert measures(images.all) == measures(table.all)
    assert scoring.score(truth, tmp_path / "coco").comparison.all.pq == 1.0
