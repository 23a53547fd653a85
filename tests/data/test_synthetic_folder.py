"""The synthetic data folder: complete, readable by plain tools, the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco
from skimage import draw

from kitlib.data import competition, livecell, synthetic, tables
from kitlib.data.synthetic.folder import STAMP, images_per_type
from kitlib.data.synthetic.livecell import polygon
from kitlib.errors import KitError
from kitlib.masks import rle

SIZE = (130, 97)  # odd on purpose: height, width
COLUMNS = [
    *("id", "annotation", "width", "height", "cell_type"),
    *("plate_time", "sample_date", "sample_id", "elapsed_timedelta"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("synthetic") / "data", seed=3, images=6, size=SIZE)


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_a_fresh_process(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from kitlib.data import synthetic;"
        "synthetic.write(sys.argv[1], seed=3, images=6, size=(130, 97))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert fingerprint(tmp_path / "again") == fingerprint(folder)


def test_another_seed_gives_other_ids_and_pictures(folder: Path, tmp_path: Path) -> None:
    other = synthetic.write(tmp_path / "other", seed=4, images=6, size=SIZE)
    names, others = ({p.stem for p in (root / "train").iterdir()} for root in (folder, other))
    assert names.isdisjoint(others)
    table, other_table = (pd.read_csv(root / "train.csv") for root in (folder, other))
    assert set(table.annotation).isdisjoint(other_table.annotation)


@pytest.mark.parametrize(("name", "images"), [("train", 6), ("test", 3)])
def test_tables_and_images_agree(folder: Path, name: str, images: int) -> None:
    table = pd.read_csv(folder / {"train": "train.csv", "test": "test_truth.csv"}[name])
    assert list(table.columns) == COLUMNS
    assert table.notna().all(axis=None)
    assert set(table.id) == {path.stem for path in (folder / name).iterdir()}
    assert table.id.nunique() == images
    assert list(table.id) == sorted(table.id)
    for row in table.groupby("id").first().reset_index().itertuples():
        assert re.fullmatch("[0-9a-f]{12}", row.id)
        with Image.open(folder / name / f"{row.id}.png") as image:
            assert (image.mode, image.size) == ("L", (97, 130))
        assert (row.width, row.height) == (97, 130)
        assert row.sample_id.startswith(row.cell_type)
        assert pd.Timedelta(row.elapsed_timedelta) < pd.Timedelta("1 day")
        pd.Timestamp(row.sample_date)


def test_annotations_are_row_major_runs_that_start_at_one(folder: Path) -> None:
    """Decoded by hand, independently of the library, the masks of a frame are those that were drawn."""
    table = pd.read_csv(folder / "train.csv")
    name = table.id[0]
    rows = table[table.id == name]
    _, cells = synthetic.frame(rows.cell_type.iloc[0], int(name, 16), SIZE)
    for text, cell in zip(rows.annotation, cells, strict=True):
        flat = np.zeros(130 * 97, bool)
        numbers = [int(word) for word in text.split()]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            flat[start - 1 : start - 1 + length] = True
        assert np.array_equal(flat.reshape(130, 97), rle.to_mask(cell.mask))


def test_the_id_of_a_frame_is_its_seed(folder: Path) -> None:
    frame = competition.labelled(folder)[0]
    picture, cells = synthetic.frame(frame.category, int(frame.id, 16), SIZE)
    assert np.array_equal(np.asarray(Image.open(frame.path)), picture)
    assert [c.mask for c in frame.cells] == [c.mask for c in cells]


def test_samples_are_shared_by_frames_of_one_type_and_split(tmp_path: Path) -> None:
    root = synthetic.write(tmp_path / "data", images=12, size=(64, 64))
    frames = competition.labelled(root)
    sizes = pd.Series([f.group for f in frames]).value_counts()
    assert sizes.max() == 2
    unlabelled, test = competition.unlabelled(root), competition.truth(root)
    groups = [{f.group for f in split} for split in (frames, unlabelled, test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_unlabelled_names_begin_with_the_type(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "train_semi_supervised").iterdir())
    pattern = r"(astros?|cort|shsy5y)\[.+\]_[A-H]\d+-\d_Vessel-\d+_\d{4}-\d\d-\d\d_\d\dh\d\dm\d\ds_Ph_\d\.png"
    assert len(names) == 3
    assert all(re.fullmatch(pattern, name) for name in names)
    assert {frame.category for frame in competition.unlabelled(folder)} == set(competition.CATEGORIES)


def test_the_sample_submission_names_every_test_image(folder: Path) -> None:
    sample = pd.read_csv(folder / "sample_submission.csv")
    assert list(sample.columns) == ["id", "predicted"]
    assert set(sample.id) == {path.stem for path in (folder / "test").iterdir()}


def test_the_kit_reads_it_all(folder: Path) -> None:
    assert len(competition.labelled(folder)) == 6
    assert len(competition.test(folder)) == 3
    assert {f.category for f in competition.truth(folder)} == set(competition.CATEGORIES)
    lines = {f.category for f in livecell.load(folder, ["train"], "line").frames}
    assert lines == {"SHSY5Y", "A172", "Huh7"}
    assert tables.read_cells(folder / "train.csv")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_polygons_round_trip(folder: Path, split: str) -> None:
    """A polygon filled at pixel centres is the very mask; pycocotools' own filling comes close."""
    root = folder / "LIVECell_dataset_2021"
    data = json.loads((root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json").read_text())
    numbers = [record["id"] for record in data["images"] + data["annotations"]]
    assert len(set(numbers)) == len(numbers)
    for image in data["images"]:
        (path,) = (root / "images").glob(f"*/*/{image['file_name']}")
        assert path.parent.parent.name == f"livecell_{'test' if split == 'test' else 'train_val'}_images"
        with Image.open(path) as picture:
            assert picture.size == (image["width"], image["height"]) == (97, 130)
        found = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        assert len(found) >= 4
        for annotation in found:
            _check_polygon(annotation)


def _check_polygon(annotation: dict) -> None:
    (points,) = annotation["segmentation"]
    x, y = np.array(points).reshape(-1, 2).T
    exact = draw.polygon2mask(SIZE, np.column_stack([y, x]) - 0.5)
    theirs = coco.decode(coco.frPyObjects([points], *SIZE)[0]).astype(bool)
    assert (exact & theirs).sum() / (exact | theirs).sum() > 0.85
    assert annotation["area"] == pytest.approx(exact.sum(), rel=0.15)
    left, top, width, height = annotation["bbox"]
    assert (left, top, left + width, top + height) == pytest.approx((x.min(), y.min(), x.max(), y.max()))


def test_polygons_are_the_masks_that_were_drawn(tmp_path: Path) -> None:
    for seed in range(3):
        for cell in synthetic.frame("A172", seed, (150, 111))[1]:
            points = polygon(cell.mask)[:, ::-1] - 0.5
            assert np.array_equal(draw.polygon2mask((150, 111), points), rle.to_mask(cell.mask))


@pytest.mark.parametrize(
    ("images", "expected"),
    [(3, (1, 1, 1)), (18, (6, 6, 6)), (24, (6, 12, 6)), (606, (131, 320, 155))],  # the last: the real set
)
def test_types_are_shared_out_as_in_the_competition(images: int, expected: tuple[int, ...]) -> None:
    assert tuple(images_per_type(images)[category] for category in ("astro", "cort", "shsy5y")) == expected


def test_the_smallest_set_is_complete(tmp_path: Path) -> None:
    root = synthetic.write(tmp_path / "data", images=3, size=(64, 70))
    assert {f.category for f in competition.labelled(root)} == set(competition.CATEGORIES)
    assert [len(livecell.load(root, [split]).frames) for split in ("train", "val", "test")] == [3, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": 2}, "2 images"),
        ({"size": (32, 256)}, "32x256"),
        ({"seed": -3}, "seed -3"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path: Path, arguments: dict, words: str) -> None:
    with pytest.raises(KitError, match=words):
        synthetic.write(tmp_path / "data", **arguments)
    assert not (tmp_path / "data").exists()


SMALL = {"seed": 1, "images": 3, "size": (64, 64)}


def test_ensure_leaves_a_complete_folder_alone(tmp_path: Path) -> None:
    root = synthetic.ensure(tmp_path / "data", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert synthetic.ensure(root, **SMALL) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_ensure_writes_a_folder_anew_that_was_left_half_written(tmp_path: Path) -> None:
    whole = fingerprint(synthetic.write(tmp_path / "whole", **SMALL))
    root = synthetic.write(tmp_path / "data", **SMALL)
    stamp = json.loads((root / STAMP).read_text())
    (root / STAMP).write_text(json.dumps({**stamp, "complete": False}))
    (root / "train.csv").unlink()
    (root / "train" / "left_over.png").write_bytes(b"half")
    synthetic.ensure(root, **SMALL)
    assert fingerprint(root) == whole


def test_ensure_draws_anew_for_other_arguments_and_keeps_foreign_files(tmp_path: Path) -> None:
    root = synthetic.write(tmp_path / "data", **SMALL)
    (root / "notes.txt").write_text("mine")
    synthetic.ensure(root, **{**SMALL, "seed": 2})
    assert len(competition.labelled(root)) == 3
    assert json.loads((root / STAMP).read_text())["seed"] == 2
    assert (root / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("call", [synthetic.write, synthetic.ensure])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path, call) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(KitError, match="holds something else"):
        call(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["train", "mine.png"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(KitError, match="is a file"):
        synthetic.write(tmp_path / "data", **SMALL)
    assert (tmp_path / "data").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert synthetic.ensure(tmp_path, **SMALL) == tmp_path
    assert len(competition.test(tmp_path)) == 3
