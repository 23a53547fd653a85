"""New images with the result of a run: once, again, after an interruption, and from Python."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

import kitlib
from kitlib import config, export, files, model, records
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.model import checkpoint
from kitlib.post.config import PostConfig, Tuned
from kitlib.predict import PredictConfig
from kitlib.predict.models import Ensemble
from kitlib.records import Frame
from kitlib.stages import segment

ANYTHING = PostConfig(score_threshold={"default": 0.0}, min_area={"default": 1}, keep_best=False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A model with random weights, which finds something everywhere."""
    torch.manual_seed(0)
    network = model.build("tiny", detections=20, rpn_post_nms_topk=(40, 40))
    options = {"detections": 20, "rpn_post_nms_topk": [40, 40]}
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all", "options": options}
    content = {"model_config": described, "categories": ["astro", "cort", "shsy5y"], "iteration": 1}
    path = tmp_path_factory.mktemp("weights") / "weights_best.pth"
    torch.save({**content, "model": network.state_dict()}, path)
    assert checkpoint.load(path).categories == ("astro", "cort", "shsy5y")
    return path


@pytest.fixture
def recipe(weights):
    return segment.Recipe((weights,), PredictConfig(score_floor=0.0, max_cells=5), ANYTHING)


@pytest.fixture
def scans(tmp_path):
    """Two images in a folder and one in a folder below it."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "plate_1/a.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(90, 160, (64, 80)).astype(np.uint8)).save(path)
    return tmp_path / "scans"


def listed(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != ".kit")


# ------------------------------------------------------------------------------------------ many images


@pytest.mark.usefixtures("predict_here")
def test_the_pixel_size_is_the_file_s_unless_one_is_given(recipe, tmp_path):
    pixels = np.random.default_rng(0).integers(90, 160, (64, 80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um"})
    frames, _ = segment.find_images([str(tmp_path / "a.tif")])
    for given, size in ((None, 0.5), (0.25, 0.25)):
        segment.segment(recipe, frames, tmp_path / "out", ["table"], gpus=0, pixel_size=given)
        assert pd.read_csv(tmp_path / "out" / "images.csv")["pixel_size_um"].tolist() == [size]


def test_images_get_their_files_and_a_second_call_leaves_them(recipe, scans, tmp_path, monkeypatch):
    out, frames = tmp_path / "out", segment.find_images([str(scans)])[0]
    first = segment.segment(recipe, frames, out, ["labels", "table"], gpus=0)
    assert (first.images, first.unchanged, first.skipped) == (3, 0, {})
    assert listed(out) == [
        "cells.csv", "images.csv", "labels/a.png", "labels/b.png", "labels/plate_1/a.png",
        "table/a.json", "table/b.json", "table/plate_1/a.json",
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
    assert (out / "rois/plate_1/a.zip").is_file()
    strict = replace(recipe, post=replace(ANYTHING, score_threshold={"default": 1.0}))
    assert segment.segment(strict, frames, out, ["labels", "table"], gpus=0).cells == 0
    assert not np.asarray(Image.open(out / "labels/a.png")).any()
    assert pd.read_csv(out / "images.csv")["cells"].tolist() == [0, 0, 0]
    # A file that is gone is made again.
    (out / "labels/a.png").unlink()
    assert segment.segment(strict, frames, out, ["labels", "table"], gpus=0).unchanged == 2
    assert (out / "labels/a.png").is_file()


def test_an_image_that_changed_is_predicted_again_and_no_other(recipe, scans, tmp_path, monkeypatch):
    out, (frames, _) = tmp_path / "out", segment.find_images([str(scans)])
    predicted = []

    def run(job, gpus):
        left = records.read_frames(job.frames)
        predicted.append([frame.id for frame in left])
        return segment.predict.Predicted(Path(job.out), left, {}, {}, {}, {})

    monkeypatch.setattr(segment.predict, "run", run)
    segment.segment(recipe, frames, out, ["labels"], gpus=0)
    os.utime(scans / "b.tif", ns=(0, 0))
    segment.segment(recipe, frames, out, ["labels"], gpus=0)
    other = replace(recipe, predict=replace(recipe.predict, scales=(2.0,)))
    segment.segment(other, frames, out, ["labels"], gpus=0)
    assert predicted == [["a", "b", "plate_1/a"], ["b"], ["a", "b", "plate_1/a"]]


@pytest.mark.usefixtures("predict_here")
def test_a_damaged_image_is_left_out_with_its_reason(recipe, scans, tmp_path):
    whole = (scans / "b.tif").read_bytes()
    (scans / "b.tif").write_bytes(whole[: len(whole) // 2])
    (scans / "c.png").write_bytes(b"no image")
    frames, unreadable = segment.find_images([str(scans)])
    assert list(unreadable) == [str(scans / "c.png")]
    for unchanged in (0, 2):
        done = segment.segment(recipe, frames, tmp_path / "out", ["labels"], gpus=0)
        assert (done.images, done.unchanged, list(done.skipped)) == (2, unchanged, ["b"])
        assert "b.tif" in done.skipped["b"]
    assert listed(tmp_path / "out") == ["labels/a.png", "labels/plate_1/a.png"]


def test_a_wrong_format_or_missing_weights_are_said_before_anything_is_done(recipe, scans, tmp_path):
    frames, _ = segment.find_images([str(scans)])
    with pytest.raises(KitError, match="did you mean 'labels'"):
        segment.segment(recipe, frames, tmp_path / "out", ["label"])
    gone = replace(recipe, weights=(tmp_path / "gone.pth",))
    with pytest.raises(KitError, match=r"gone\.pth does not exist"):
        segment.segment(gone, frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------ finding images


def test_files_folders_and_patterns_are_found(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ignored in (".hidden/a.png", "results/labels/a.png"):
        (scans / ignored).parent.mkdir(parents=True)
        (scans / ignored).write_bytes((scans / "a.png").read_bytes())
    (scans / "notes.txt").write_text("no image")
    found = {
        ("scans",): ["a", "b", "plate_1/a"],
        ("scans/plate_1",): ["a"],
        ("scans/*.png", "scans/a.png"): ["a"],
        ("scans/b.tif", "scans"): ["b", "a", "plate_1/a"],
    }
    for places, ids in found.items():
        frames, unreadable = segment.find_images(places, out=Path("scans/results"))
        assert [frame.id for frame in frames] == ids
        assert unreadable == {}
        assert {(frame.height, frame.width) for frame in frames} == {(64, 80)}


def test_images_that_differ_by_extension_only_are_told_apart(scans):
    (scans / "a.tif").write_bytes((scans / "b.tif").read_bytes())
    frames, _ = segment.find_images([str(scans)])
    assert [frame.id for frame in frames] == ["a.png", "a.tif", "b", "plate_1/a"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["gone"], "gone names no file or folder"),
        (["scans/*.jpg"], "names no file or folder"),
        (["scans/a.png", "scans/plate_1/a.png"], "would have the same results, 'a.png'"),
        (["empty"], "no image was found"),
    ],
)
def test_what_names_no_image_is_said(scans, tmp_path, monkeypatch, places, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError, match=message):
        segment.find_images(places)


# ------------------------------------------------------------------------------------------ recipes


def test_a_run_s_weights_are_used_as_their_post_processing_was_tuned(tmp_path):
    stage = tmp_path / "run" / "03_train"
    files.write_json(stage / "metrics.json", {"weights": ["fold_0/w.pth", "fold_1/w.pth"]})
    files.write_text(
        stage / "config.yaml", "predict: {scales: [1.0, 1.5], candidate_mask_thresholds: [0.4]}\n"
    )
    post = PostConfig(score_threshold={"default": 0.3}, mask_threshold={"default": 0.45})
    config.save(Tuned(post, 0.3, 0.2, 0.4), stage / "post.yaml")
    made = segment.recipe(tmp_path / "run")
    assert made.weights == (stage / "fold_0/w.pth", stage / "fold_1/w.pth")
    assert made.post == replace(post, keep_best=False)
    assert (made.predict.scales, made.predict.candidate_mask_thresholds) == ((1.0, 1.5), ())
    assert made.predict.mask_threshold == {"default": 0.45}
    assert (made.predict.tile, made.predict.stride) == ((1024, 1024), (768, 768))
    # Frames of training that were larger are predicted whole.
    records.write_frames(stage / "fold_0" / "train.npz", [Frame("a", None, 1500, 2000)])
    assert segment.recipe(tmp_path / "run").predict.tile == (2000, 2000)
    files.write_text(stage / "config.yaml", "predict: {tile: [300, 400]}\n")
    made = segment.recipe(tmp_path / "run")
    assert (made.predict.tile, made.predict.stride) == ((300, 400), None)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(KitError, match=r"neither a \.pth file of weights nor a run"):
        segment.recipe(tmp_path)


# ------------------------------------------------------------------------------------------ from Python


def test_three_lines_of_python(weights, scans, monkeypatch):
    found = kitlib.load(weights, device="cpu")
    found.recipe = replace(found.recipe, post=ANYTHING)
    frame = found(scans / "plate_1" / "a.png")
    labels = kitlib.to_labels(frame)
    assert (frame.id, frame.path, labels.shape) == ("a", scans / "plate_1" / "a.png", (64, 80))
    assert rle.from_labels(labels) == [cell.mask for cell in frame.cells]
    assert len(frame.cells) > 1
    pixels = np.asarray(Image.open(scans / "plate_1" / "a.png"))
    for image in (pixels, np.repeat(pixels[..., None], 3, axis=2), str(scans / "plate_1" / "a.png")):
        assert [c.mask for c in found(image).cells] == [c.mask for c in frame.cells]
    assert export.write(found(pixels), pixels, scans.parent / "out", ["labels"])["labels"].name == "image.png"


def test_importing_the_kit_imports_nothing_else():
    code = "import sys, kitlib; print([m for m in ('numpy', 'torch', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        kitlib.lode  # noqa: B018


class Blobs(nn.Module):
    """A model that finds each bright piece of an image."""

    def inference(self, inputs, do_postprocess=True):
        return [self.find(item["image"][0].numpy()) for item in inputs]

    def find(self, image):
        assert max(image.shape) <= 1024
        _, _, stats, _ = cv2.connectedComponentsWithStats((image > 127).astype(np.uint8))
        boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:].tolist()]).reshape(-1, 4)
        count = len(boxes)
        return Instances(
            image.shape,
            pred_boxes=Boxes(boxes.float()),
            scores=torch.full((count,), 0.9),
            pred_classes=torch.zeros(count, dtype=torch.int64),
            pred_masks=torch.ones(count, 1, 28, 28),
        )


def test_a_large_image_is_seen_in_tiles_and_no_cell_is_cut_or_left_out(weights, monkeypatch):
    monkeypatch.setattr(segment, "load_models", lambda *_: Ensemble((Blobs(),), ("cell",)))
    image = np.zeros((2100, 2500), np.uint8)
    for y in range(10, 2080, 50):
        for x in range(10, 2480, 50):
            image[y : y + 20, x : x + 30] = 200
    frame = segment.Model(segment.recipe(weights))(image)
    assert len(frame.cells) == 42 * 50 > 1000
    assert ((kitlib.to_labels(frame) > 0) == (image > 0)).all()
    assert set(rle.areas([cell.mask for cell in frame.cells]).tolist()) == {600}
