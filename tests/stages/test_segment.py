"""Many new images: once, again, after an interruption, page by page."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from kitlib import files, records
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.post.config import PostConfig
from kitlib.predict import PredictConfig
from kitlib.stages import new_images, segment

ANYTHING = PostConfig(score_threshold={"default": 0.0}, min_area={"default": 1}, keep_best=False)


@pytest.fixture
def recipe(weights):
    return segment.Recipe((weights,), PredictConfig(score_floor=0.0, max_cells=5), ANYTHING, ReadingConfig())


def find(places):
    return new_images.find(places, ReadingConfig())


def listed(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != ".kit")


# ------------------------------------------------------------------------------------------ many images


@pytest.mark.usefixtures("predict_here")
def test_the_pixel_size_is_the_file_s_unless_one_is_given(recipe, tmp_path):
    pixels = np.random.default_rng(0).integers(90, 160, (64, 80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um"})
    frames, _ = find([str(tmp_path / "a.tif")])
    for given, size in ((None, 0.5), (0.25, 0.25)):
        segment.segment(recipe, frames, tmp_path / "out", ["table"], gpus=0, pixel_size=given)
        assert pd.read_csv(tmp_path / "out" / "images.csv")["pixel_size_um"].tolist() == [size]


def test_images_get_their_files_and_a_second_call_leaves_them(recipe, scans, tmp_path, monkeypatch):
    out, frames = tmp_path / "out", find([str(scans)])[0]
    first = segment.segment(recipe, frames, out, ["labels", "table"], gpus=0)
    assert (first.images, first.unchanged, first.skipped) == (3, 0, {})
    assert listed(out) == [
        "cells.csv", "images.csv", "labels/a.png", "labels/b.png", "labels/plate_1__a.png",
        "table/a.json", "table/b.json", "table/plate_1__a.json",
    ]  # fmt: skip
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == first.cells > 5
    for name, group in cells.groupby("image"):
        labels = np.asarray(Image.open(out / f"labels/{name}.png"))
        assert np.bincount(labels.ravel())[1:].tolist() == group["area"].tolist()
    monkeypatch.setattr(segment.predict, "run", lambda *_: pytest.fail("an image was predicted again"))
    before = {name: (out / name).stat().st_mtime_ns for name in listed(out) if "/" in name}
    again = segment.segment(recipe, frames, out, ["labels", "table"], gpus=0)
    assert again == replace(first, unchanged=3)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    # Other formats and other post-processing need no prediction.
    assert segment.segment(recipe, frames, out, ["labels", "rois"], gpus=0).unchanged == 0
    assert (out / "rois/plate_1__a.zip").is_file()
    strict = replace(recipe, post=replace(ANYTHING, score_threshold={"default": 1.0}))
    assert segment.segment(strict, frames, out, ["labels", "table"], gpus=0).cells == 0
    assert not np.asarray(Image.open(out / "labels/a.png")).any()
    assert pd.read_csv(out / "images.csv")["cells"].tolist() == [0, 0, 0]
    # A file that is gone is made again.
    (out / "labels/a.png").unlink()
    assert segment.segment(strict, frames, out, ["labels", "table"], gpus=0).unchanged == 2
    assert (out / "labels/a.png").is_file()


def test_an_image_that_changed_is_predicted_again_and_no_other(recipe, scans, tmp_path, monkeypatch):
    out, (frames, _) = tmp_path / "out", find([str(scans)])
    predicted = []

    def run(job, gpus):
        left = records.read_frames(job.frames)
        predicted.append([frame.id for frame in left])
        return segment.predict.Predicted(Path(job.out), left, {}, {}, {}, {}, frozenset())

    monkeypatch.setattr(segment.predict, "run", run)
    segment.segment(recipe, frames, out, ["labels"], gpus=0)
    os.utime(scans / "b.tif", ns=(0, 0))
    segment.segment(recipe, frames, out, ["labels"], gpus=0)
    other = replace(recipe, predict=replace(recipe.predict, scales=(2.0,)))
    segment.segment(other, frames, out, ["labels"], gpus=0)
    assert predicted == [["a", "b", "plate_1__a"], ["b"], ["a", "b", "plate_1__a"]]


@pytest.mark.usefixtures("predict_here")
def test_a_damaged_image_is_left_out_with_its_reason(recipe, scans, tmp_path):
    whole = (scans / "b.tif").read_bytes()
    (scans / "b.tif").write_bytes(whole[: len(whole) // 2])
    (scans / "c.png").write_bytes(b"no image")
    # Its header and its end are whole.
    damaged = bytearray((scans / "a.png").read_bytes())
    damaged[100:140] = bytes(40)
    (scans / "d.png").write_bytes(damaged)
    frames, unreadable = find([str(scans)])
    assert list(unreadable) == [str(scans / "b.tif"), str(scans / "c.png")]
    for unchanged in (0, 2):
        done = segment.segment(recipe, frames, tmp_path / "out", ["labels"], gpus=0)
        assert (done.images, done.unchanged, list(done.skipped)) == (2, unchanged, ["d"])
        assert "d.png" in done.skipped["d"]
    assert listed(tmp_path / "out") == ["labels/a.png", "labels/plate_1__a.png"]


def test_a_wrong_format_or_missing_weights_are_said_before_anything_is_done(recipe, scans, tmp_path):
    frames, _ = find([str(scans)])
    with pytest.raises(KitError, match="did you mean 'labels'"):
        segment.segment(recipe, frames, tmp_path / "out", ["label"])
    gone = replace(recipe, weights=(tmp_path / "gone.pth",))
    with pytest.raises(KitError, match=r"gone\.pth does not exist"):
        segment.segment(gone, frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------ page by page


@pytest.mark.usefixtures("predict_here")
def test_a_stack_is_predicted_page_by_page_and_measured_on_its_own_numbers(recipe, tmp_path):
    rng = np.random.default_rng(0)
    # Two slices in two channels, of 16 bits.
    stack = rng.integers(2000, 60_000, (2, 2, 64, 80)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    found, _ = new_images.find([str(tmp_path / "s.tif")], ReadingConfig(channel=1))
    out = tmp_path / "out"
    done = segment.segment(recipe, found, out, ["labels", "table", "coco"], gpus=0)
    assert (done.images, done.skipped) == (2, {})
    cells = pd.read_csv(out / "cells.csv")
    assert set(cells["image"]) == {"s_p0000", "s_p0001"}
    for plane, pixels in enumerate(stack.astype(float)):
        labels = np.asarray(Image.open(out / f"labels/s_p{plane:04d}.png"))
        for row in cells[cells["image"] == f"s_p{plane:04d}"].itertuples():
            for channel, total in enumerate([row.integrated_intensity_1, row.integrated_intensity_2]):
                assert total == pixels[channel][labels == row.cell].sum()
    names = [image["file_name"] for image in files.read_json(out / "annotations.json")["images"]]
    assert names == ["s_p0000.tif", "s_p0001.tif"]
    # What was converted for the network is gone.
    assert not (out / ".kit" / "pictures").exists()
    assert segment.segment(recipe, found, out, ["labels", "table", "coco"], gpus=0).unchanged == 2


@pytest.mark.usefixtures("predict_here")
def test_outlines_are_drawn_on_the_channel_that_the_network_saw(recipe, tmp_path):
    stack = np.zeros((2, 64, 80), np.uint16)
    stack[1] = np.linspace(100, 60_000, 80).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "CYX"})
    none = replace(recipe, post=replace(ANYTHING, score_threshold={"default": 1.0}))
    found, _ = new_images.find([str(tmp_path / "s.tif")], ReadingConfig(channel=1))
    segment.segment(none, found, tmp_path / "out", ["outlines"], gpus=0)
    drawn = np.asarray(Image.open(tmp_path / "out/outlines/s.png"))
    assert (np.diff(drawn[..., 0].astype(int), axis=1) >= 0).all()
    assert drawn[:, -1].min() > drawn[:, 0].max() + 100


@pytest.mark.usefixtures("predict_here")
def test_an_image_at_the_limit_of_instances_is_told(recipe, scans, tmp_path, capsys):
    found, _ = find([str(scans)])
    for unchanged in (0, 3):
        done = segment.segment(recipe, found, tmp_path / "out", ["table"], gpus=0)
        assert (done.limited, done.unchanged) == (3, unchanged)
        flags = pd.read_csv(tmp_path / "out/images.csv")["flags"]
        assert all("limit of instances reached" in flag for flag in flags)
    assert "3 images have 5 instances, the most that max_cells allows" in capsys.readouterr().out
    roomy = replace(recipe, predict=replace(recipe.predict, max_cells=1000))
    assert segment.segment(roomy, found, tmp_path / "out", ["table"], gpus=0).limited == 0
