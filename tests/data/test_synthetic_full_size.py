"""A folder with the published numbers of files, cells and faults."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kitlib.data import competition
from kitlib.data.synthetic import cultures, full_size, livecell
from kitlib.data.synthetic.drawings import Drawings, cells_per_image
from kitlib.data.synthetic.folder import STAMP
from kitlib.errors import KitError
from kitlib.masks import rle

SIZE = (96, 128)
SMALL = {"seed": 1, "share": 0.001, "size": (64, 64)}


def annotations(root: Path, split: str) -> dict:
    path = root / "LIVECell_dataset_2021" / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
    return json.loads(path.read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def by_image(coco: dict) -> dict[int, list[dict]]:
    found = defaultdict(list)
    for annotation in coco["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return found


# -------------------------------------------------------------------------------- numbers


def test_livecell_lists_the_published_numbers_of_ids_and_files() -> None:
    rng = np.random.default_rng(0)
    drawings = {line: Drawings(line, published, (64, 64), rng) for line, published in cultures.LINES.items()}
    plan = livecell.plan(drawings, 1.0, rng)
    names = {split: Counter(listing.name for listing in listings) for split, listings in plan.items()}
    numbers = {split: (sum(counts.values()), len(counts)) for split, counts in names.items()}
    assert numbers == {"train": (3253, 3188), "val": (570, 570), "test": (1564, 1512)}
    # LIVECell's paper counts 5,239 images in all.
    assert len(set().union(*names.values())) == 5239
    second = [name for name, times in names["train"].items() if times == 2]
    assert len(second) == 65
    assert sum(name.startswith("Huh7_") for name in second) >= 50


def test_the_numbers_of_the_labelled_images_are_the_published_ones() -> None:
    images = {name: published.images for name, published in cultures.TYPES.items()}
    assert images == {"astro": 131, "cort": 320, "shsy5y": 155}
    assert sum(published.cells for published in cultures.TYPES.values()) == 73_585
    assert sum(sum(plates.values()) for plates in cultures.UNLABELLED.values()) == 1972
    assert sum(published.images for published in cultures.LINES.values()) == 5239


def test_half_the_images_have_half_the_cells() -> None:
    """In frames of a quarter of the published size, which hold a quarter of the cells."""
    rng = np.random.default_rng(1)
    drawings = Drawings("shsy5y", cultures.TYPES["shsy5y"], (260, 352), rng)
    for images, cells in {155: 52_286 / 4, 78: 52_286 / 8}.items():
        counts = [len(shown.cells) for shown in drawings.show(images, rng)]
        assert sum(counts) == pytest.approx(cells, rel=0.01)
        assert max(counts) <= 198  # 790 / 4


@pytest.mark.parametrize(
    ("images", "total", "most"),
    [(1, 7, 9), (3, 12, 9), (10, 340, 108), (320, 10_777, 108), (155, 52_286, 790)],
)
def test_cells_per_image_sum_to_the_total(images: int, total: int, most: int) -> None:
    counts = cells_per_image(images, total, most, spread=0.45)
    assert counts.sum() == total
    assert counts.min() >= 4
    assert counts.max() <= most
    assert sorted(counts) == counts.tolist()


def test_what_no_image_has_room_for_is_left_out() -> None:
    assert cells_per_image(3, 100, 9, spread=0.45).tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("total", "expected"), [(10, [5, 3, 2]), (3, [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0])]
)
def test_numbers_are_apportioned(total: int, expected: list[int]) -> None:
    assert list(cultures.apportion(total, {"a": 50, "b": 30, "c": 20}).values()) == expected


# -------------------------------------------------------------------------------- drawings


def test_a_mirrored_drawing_has_mirrored_masks() -> None:
    drawings = Drawings("astro", cultures.TYPES["astro"], (70, 90), np.random.default_rng(3))
    plain = drawings.show(1, np.random.default_rng(0))[0].drawing.mirrored(False, False)
    turned = plain.mirrored(True, False)
    both = plain.mirrored(True, True)
    assert np.array_equal(turned.pixels, plain.pixels[::-1])
    for before, after, around in zip(plain.masks, turned.masks, both.masks, strict=True):
        assert np.array_equal(rle.to_mask(after), rle.to_mask(before)[::-1])
        assert np.array_equal(rle.to_mask(around), rle.to_mask(before)[::-1, ::-1])


# -------------------------------------------------------------------------------- the folder


def test_the_kit_reads_the_competition_part(full_size_folder: Path) -> None:
    frames = competition.labelled(full_size_folder)
    assert {f.category for f in frames} == set(competition.CATEGORIES)
    assert all(len(f.cells) >= 4 and f.group for f in frames)
    test, truth = competition.test(full_size_folder), competition.truth(full_size_folder)
    assert {f.id for f in test} == {f.id for f in truth}
    groups = Counter(f.group.split("_")[0] for f in competition.unlabelled(full_size_folder))
    # 0.005 of the published numbers of images on each plate, at least 1.
    treated = ("6-OHDA", "debris", "density", "oka-high", "oka-low", "pre-treat")
    several = {"astro[hippo]": 3, "astros[cereb]": 3, "shsy5y[diff]": 2}
    assert groups == {**several, **{f"cort[{treatment}]": 1 for treatment in treated}}


def test_a_shown_image_holds_its_annotated_cells(full_size_folder: Path) -> None:
    """A cell's edge is darker than the halo around it, also in an image that was mirrored."""
    for frame in competition.labelled(full_size_folder):
        picture = np.asarray(Image.open(frame.path)).astype(float)
        cells = rle.to_mask(rle.merge([cell.mask for cell in frame.cells]))
        assert picture[cells].mean() < picture[~cells].mean()


def test_each_fault_of_livecell_is_there(full_size_folder: Path) -> None:
    train, val, test = (annotations(full_size_folder, split) for split in ("train", "val", "test"))
    names = [Counter(image["file_name"] for image in coco["images"]) for coco in (train, val, test)]
    assert [name[:5] for name, times in names[0].items() if times == 2] == ["Huh7_"]
    assert [name[:5] for name, times in names[2].items() if times == 2] == ["Huh7_"]
    assert names[0].keys() & names[1].keys()
    cells = {image: len(found) for image, found in by_image(train).items()}
    assert min(cells.values()) < 4  # an image has at least 4 cells, unless most of them are not annotated
    there = {path.name for path in (full_size_folder / "LIVECell_dataset_2021" / "images").rglob("*.tif")}
    assert set().union(*names) == there


def test_second_annotations_of_a_file_are_of_the_same_cells(full_size_folder: Path) -> None:
    train = annotations(full_size_folder, "train")
    names = Counter(image["file_name"] for image in train["images"])
    both = [image["id"] for image in train["images"] if names[image["file_name"]] == 2]
    first, second = (
        {tuple(annotation["segmentation"][0]) for annotation in by_image(train)[image]} for image in both
    )
    assert first < second or second < first


def test_one_image_has_each_cell_outlined_twice(full_size_folder: Path) -> None:
    train = annotations(full_size_folder, "train")
    doubled = []
    for image, found in by_image(train).items():
        boxes = np.array([annotation["bbox"] for annotation in found])
        half = len(boxes) // 2
        if half and len(boxes) % 2 == 0 and np.abs(boxes[:half] - boxes[half:]).max() < 3:
            doubled.append(image)
    assert len(doubled) == 1


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_polygons_lie_in_their_image_and_ids_are_unique(full_size_folder: Path, split: str) -> None:
    coco = annotations(full_size_folder, split)
    numbers = [record["id"] for record in coco["images"] + coco["annotations"]]
    assert len(set(numbers)) == len(numbers)
    assert {annotation["image_id"] for annotation in coco["annotations"]} == {i["id"] for i in coco["images"]}
    for annotation in coco["annotations"]:
        (points,) = annotation["segmentation"]
        (mask,) = rle.from_polygons([[points]], *SIZE)
        assert rle.areas([mask])[0] == pytest.approx(annotation["area"], rel=0.3, abs=15)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_single_line_has_a_dict_of_annotations(full_size_folder: Path, split: str) -> None:
    folder = full_size_folder / "LIVECell_dataset_2021" / "annotations" / "LIVECell_single_cells" / "shsy5y"
    coco = json.loads((folder / f"{split}.json").read_text())
    assert all(name == str(value["id"]) for name, value in coco["annotations"].items())
    assert {image["file_name"][:7] for image in coco["images"]} == {"SHSY5Y_"}
    assert {a["image_id"] for a in coco["annotations"].values()} == {i["id"] for i in coco["images"]}


def test_an_image_takes_place_on_the_disk_once(full_size_folder: Path) -> None:
    files = list((full_size_folder / "train_semi_supervised").iterdir())
    files += list((full_size_folder / "train").iterdir())
    contents = {path.read_bytes() for path in files}
    assert len({path.stat().st_ino for path in files}) == len(contents) < len(files)


# -------------------------------------------------------------------------------- writing


def test_the_same_seed_gives_the_same_bytes_where_links_are_impossible_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = contents(full_size.write(tmp_path / "first", **SMALL))

    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    second = full_size.write(tmp_path / "second", **SMALL)
    assert contents(second) == first
    assert all(path.stat().st_nlink == 1 for path in second.rglob("*.png"))
    assert contents(full_size.write(tmp_path / "third", **{**SMALL, "seed": 2})).keys() != first.keys()


def test_a_complete_folder_is_left_alone_and_a_half_written_one_is_written_again(tmp_path: Path) -> None:
    root = full_size.ensure(tmp_path / "data", **SMALL)
    whole = contents(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    full_size.ensure(root, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    stamp = json.loads((root / STAMP).read_text())
    (root / STAMP).write_text(json.dumps({**stamp, "complete": False}))
    (root / "train.csv").unlink()
    (root / "train" / "left_over.png").write_bytes(b"half")
    assert contents(full_size.ensure(root, **SMALL)) == whole


@pytest.mark.parametrize("share", [0, -1, 1.5, math.nan])
def test_a_share_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, share: float) -> None:
    with pytest.raises(KitError, match="share of"):
        full_size.write(tmp_path / "data", share=share)
    assert not (tmp_path / "data").exists()


def test_each_table_names_the_columns_of_the_published_one(full_size_folder: Path) -> None:
    table = pd.read_csv(full_size_folder / "train.csv")
    assert list(table.columns) == [
        *("id", "annotation", "width", "height", "cell_type"),
        *("plate_time", "sample_date", "sample_id", "elapsed_timedelta"),
    ]
    assert table.notna().all(axis=None)
    assert table.id.str.fullmatch("[0-9a-f]{12}").all()
    assert list(table.id) == sorted(table.id)
