"""What a run finds cells with, and three lines of Python."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

import kitlib
from kitlib import config, export, files, records
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.post.config import PostConfig, Tuned
from kitlib.predict.models import Ensemble
from kitlib.records import Frame
from kitlib.stages import trained

ANYTHING = PostConfig(score_threshold={"default": 0.0}, min_area={"default": 1}, keep_best=False)


# ------------------------------------------------------------------------------------------ recipes


def test_a_run_s_weights_are_used_as_their_post_processing_was_tuned(tmp_path):
    stage = tmp_path / "run" / "03_train"
    files.write_json(stage / "metrics.json", {"weights": ["fold_0/w.pth", "fold_1/w.pth"]})
    files.write_text(
        stage / "config.yaml", "predict: {scales: [1.0, 1.5], candidate_mask_thresholds: [0.4]}\n"
    )
    post = PostConfig(score_threshold={"default": 0.3}, mask_threshold={"default": 0.45})
    config.save(Tuned(post, 0.3, 0.2, 0.4), stage / "post.yaml")
    made = trained.recipe(tmp_path / "run")
    assert made.weights == (stage / "fold_0/w.pth", stage / "fold_1/w.pth")
    assert made.post == replace(post, keep_best=False)
    assert (made.predict.scales, made.predict.candidate_mask_thresholds) == ((1.0, 1.5), ())
    assert made.predict.mask_threshold == {"default": 0.45}
    assert (made.predict.tile, made.predict.stride) == ((1024, 1024), (768, 768))
    # Frames of training that were larger are predicted whole.
    records.write_frames(stage / "fold_0" / "train.npz", [Frame("a", None, 1500, 2000)])
    assert trained.recipe(tmp_path / "run").predict.tile == (2000, 2000)
    files.write_text(stage / "config.yaml", "predict: {tile: [300, 400]}\n")
    made = trained.recipe(tmp_path / "run")
    assert (made.predict.tile, made.predict.stride) == ((300, 400), None)


def test_images_are_read_as_the_run_s_were_unless_told_otherwise(tmp_path):
    stage = tmp_path / "run" / "03_train"
    files.write_json(stage / "metrics.json", {"weights": ["fold_0/w.pth"]})
    config.save(Tuned(PostConfig(), 0.3, 0.2, 0.4), stage / "post.yaml")
    assert trained.recipe(tmp_path / "run").reading == ReadingConfig()
    config.save(ReadingConfig(channel=1, projection="max"), stage / "reading.yaml")
    readings = {
        (): ReadingConfig(channel=1, projection="max"),
        (("plane", 3),): ReadingConfig(channel=1, plane=3),
        (("channel", "grey"),): ReadingConfig(channel="grey", projection="max"),
    }
    for choices, reading in readings.items():
        assert trained.recipe(tmp_path / "run", dict(choices)).reading == reading
    with pytest.raises(KitError, match="give plane or projection, not both"):
        trained.recipe(tmp_path / "run", {"plane": 0, "projection": "max"})


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(KitError, match=r"neither a \.pth file of weights nor a run"):
        trained.recipe(tmp_path)


# ------------------------------------------------------------------------------------------ from Python


def test_three_lines_of_python(weights, scans, monkeypatch):
    found = kitlib.load(weights, device="cpu")
    found.recipe = replace(found.recipe, post=ANYTHING)
    frame = found(scans / "plate_1" / "a.png")
    labels = frame.to_labels()
    assert (frame.id, frame.path, labels.shape) == ("a", scans / "plate_1" / "a.png", (64, 80))
    assert rle.from_labels(labels) == [cell.mask for cell in frame.cells]
    assert len(frame.cells) > 1
    pixels = np.asarray(Image.open(scans / "plate_1" / "a.png"))
    for image in (pixels, np.repeat(pixels[..., None], 3, axis=2), str(scans / "plate_1" / "a.png")):
        assert [c.mask for c in found(image).cells] == [c.mask for c in frame.cells]
    result = export.Result(found(pixels), pixels)
    assert export.write(result, scans.parent / "out", ["labels"])["labels"].name == "image.png"


def test_a_stack_is_read_as_the_recipe_says_or_refused(weights, tmp_path):
    stack = np.random.default_rng(0).integers(0, 60_000, (3, 64, 80)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    found = kitlib.load(weights, device="cpu")
    with pytest.raises(KitError, match=r"choose by plane \(0 to 2\)"):
        found(tmp_path / "s.tif")
    by_pixels = found(stack[1])
    found.recipe = replace(found.recipe, reading=ReadingConfig(plane=1))
    assert found(tmp_path / "s.tif").cells == by_pixels.cells


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
    monkeypatch.setattr(trained, "load_models", lambda *_: Ensemble((Blobs(),), ("cell",)))
    image = np.zeros((2100, 2500), np.uint8)
    for y in range(10, 2080, 50):
        for x in range(10, 2480, 50):
            image[y : y + 20, x : x + 30] = 200
    frame = trained.Model(trained.recipe(weights))(image)
    assert len(frame.cells) == 42 * 50 > 1000
    assert ((frame.to_labels() > 0) == (image > 0)).all()
    assert set(rle.areas([cell.mask for cell in frame.cells]).tolist()) == {600}


def test_the_lines_of_the_documentation_work_as_written(weights, scans):
    page = (Path(__file__).parents[2] / "docs" / "own-cells.md").read_text()
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load(" in block)
    assert lines.splitlines()[-1] == "labels = frame.to_labels()"
    names = {"outputs/demo": weights, "scans/well_A1.tif": scans / "b.tif"}
    for name, path in names.items():
        lines = lines.replace(f'"{name}"', repr(str(path)))
    found: dict = {}
    exec(lines, found)
    assert found["labels"].shape == (64, 80)
    assert set(np.unique(found["labels"])) == set(range(len(found["frame"].cells) + 1))
