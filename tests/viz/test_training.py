"""What a training is fed, and the stages of a run, on real files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kitlib import config as configs
from kitlib import viz
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.masks import rle
from kitlib.model.presets import ModelConfig
from kitlib.records import Cell, Frame, write_frames
from kitlib.train.config import TrainConfig

SIZE = (60, 80)


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    """Two images of random grey levels, each with two squares and an ignored corner."""
    made = []
    for n, category in enumerate(("cort", "astro")):
        path = tmp_path / f"{n}.png"
        Image.fromarray(np.random.default_rng(n).integers(90, 160, SIZE).astype(np.uint8)).save(path)
        cells = tuple(Cell(rle.from_crop(np.ones((12, 12)), x, 20, *SIZE), category) for x in (10, 40))
        ignore = rle.from_crop(np.ones((8, 8)), 0, 0, *SIZE)
        made.append(Frame(str(n), path, *SIZE, cells, category, weight=0.5, ignore=ignore))
    return made


def config(**fields) -> TrainConfig:
    given = {"out": "o", "train": "t", "categories": ("astro", "cort"), "model": ModelConfig(num_classes=2)}
    return TrainConfig(**given | fields)


def test_samples_are_those_of_the_training_s_loader(drawn, frames: list[Frame]) -> None:
    """The same pixels and masks as the loader's first batches, whatever the seed."""
    from kitlib.train.loader import loader
    from kitlib.train.sampler import TrainingSampler

    augment = AugmentConfig(scale=(1.5, 2.0), crop=(64, 64), brightness=0.2, copy_paste=0.5)
    job = config(augment=augment, seed=5)
    batches = iter(
        loader(frames, augment, job.categories, TrainingSampler(frames, job.sampler, 5), 1, seed=5)
    )
    panels = drawn(viz.training_samples(frames, job, count=5)).axes
    for panel in panels[:5]:
        (sample,) = next(batches)
        picture = panel.images[0].get_array()
        image = sample["image"][0].numpy()
        assert picture.shape == (*image.shape, 3)
        # Where nothing is drawn, brighter pixels stay brighter.
        plain = np.ptp(picture, axis=2) < 1e-6
        assert np.corrcoef(picture[plain][:, 0], image[plain])[0, 1] > 0.99
        inside = np.zeros(image.shape, bool)
        masks = sample["instances"].gt_masks
        for n in range(len(masks)):
            x, y, width, height = masks.boxes[n].tolist()
            start = int(masks.offsets[n])
            pixels = masks.storage[start : start + width * height].reshape(height, width).numpy() > 0
            inside[y : y + height, x : x + width] |= pixels
        coloured = np.ptp(picture, axis=2) > 1e-6
        assert coloured[inside].all()
        number = len(masks)
        noun = "1 cell" if number == 1 else f"{number} cells"
        assert f"{noun}, 64 x 64 px\nweight in the loss 0.50" in panel.get_title(loc="left")
    assert not any(panel.axison for panel in panels[5:])


def test_a_sample_that_cannot_be_made_is_an_error(frames: list[Frame]) -> None:
    with pytest.raises(KitError, match="training needs one"):
        viz.training_samples([replace(frames[0], path=None)], config())
    with pytest.raises(KitError, match="cell type"):
        viz.training_samples(frames, config(categories=("cort", "other")))


@pytest.fixture
def run(tmp_path: Path, frames: list[Frame]) -> Path:
    """A run of pretraining, two folds, and a retraining with a pseudo-labelled image."""
    out = tmp_path / "run"
    guess = replace(frames[0], cells=tuple(replace(cell, score=0.9) for cell in frames[0].cells))
    trained = {
        "02_pretrain_livecell": (frames, ""),
        "03_train/fold_0": (frames, str(out / "02_pretrain_livecell" / "weights_last.pth")),
        "03_train/fold_1": (frames, str(out / "02_pretrain_livecell" / "weights_last.pth")),
        "05_retrain/fold_0": ([*frames, guess], "imagenet"),
    }
    for name, (images, weights) in trained.items():
        folder = out / name
        folder.mkdir(parents=True)
        train = str(write_frames(folder / "train.npz", images))
        configs.save(config(out=str(folder), train=train, weights=weights), folder / "job.yaml")
        rows = [{"iteration": 0, "note": "weights"}]
        rows += [{"iteration": n, "lr": 1e-3 / n, "total_loss": 1.0} for n in (1, 2, 3)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        result = {"iteration": 3, "map": None if weights == "" else 0.25, "best_iteration": 3}
        (folder / "result.json").write_text(json.dumps(result))
    return out


def test_the_stages_of_a_run_are_read_from_its_folder(run: Path) -> None:
    first, second, third = viz.read_training_stages(run)
    assert (first.name, first.images, first.start, first.score) == (
        *("02_pretrain_livecell", 2, "random weights", None),
    )
    assert (second.name, second.repeats, second.start) == (
        *("03_train/fold_0", 2, "weights of 02_pretrain_livecell"),
    )
    assert second.rates == pytest.approx((1e-3, 5e-4, 1e-3 / 3))
    assert (third.images, third.pseudo, third.start, third.score) == (3, 1, "weights: imagenet", 0.25)


def test_the_schedule_goes_on_from_stage_to_stage(drawn, run: Path) -> None:
    panels = drawn(viz.training_stages(viz.read_training_stages(run))).axes
    assert [panel.lines[0].get_xdata().tolist() for panel in panels] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert panels[1].get_xlabel().split("\n") == [
        "iterations: 3, 2 images each",
        "2 images",
        "from weights of 02_pretrain_livecell",
        "one of 2 folds",
        "score before tuning 0.250",
    ]
    assert "3 images, 1 of them pseudo-labelled" in panels[2].get_xlabel()
    drawn(viz.training_stages([]))


def test_a_run_without_training_has_no_stages(tmp_path: Path) -> None:
    assert viz.read_training_stages(tmp_path) == []
