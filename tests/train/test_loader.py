"""Batches: the same for any number of workers, for shared and for resumed runs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.inputs.sample import PackedSample
from kitlib.masks import rle
from kitlib.records import Cell, Frame
from kitlib.train.loader import loader
from kitlib.train.sampler import SamplerConfig, TrainingSampler

SETTINGS = AugmentConfig(scale=(1, 2), crop=(48, 48), noise=3, copy_paste=0.5)


@pytest.fixture
def frames(tmp_path) -> list[Frame]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (60, 80), np.uint8)).save(path)
        masks = (rle.from_crop(np.ones((9, 9)), *rng.integers(0, 50, 2).tolist(), 60, 80) for _ in range(6))
        cells = tuple(Cell(m, "cort") for m in masks)
        ignore = rle.from_crop(np.ones((30, 40)), 5, 5, 60, 80) if i % 2 else None
        made.append(Frame(f"f{i}", path, 60, 80, cells, "cort", ignore=ignore))
    return made


def content(batch) -> list[tuple]:
    """For each sample its id, image, masks and ignored area, as bytes."""
    return [
        (s["image_id"], s["image"].numpy().tobytes(), s["instances"].gt_masks.storage.numpy().tobytes())
        + ((s["instances"].gt_ignored.table.numpy().tobytes(),) if s["instances"].has("gt_ignored") else ())
        for s in batch
    ]


def batches(frames, number, size=2, workers=0, sampler=None, seed=0) -> list[list[tuple]]:
    sampler = sampler or TrainingSampler(frames, SamplerConfig())
    made = loader(frames, SETTINGS, ("cort",), sampler, size, workers, seed)
    return [content(b) for b in islice(made, number)]


def test_workers_make_the_same_batches(frames):
    alone = batches(frames, 6)
    assert {len(sample) for batch in alone for sample in batch} == {3, 4}  # without and with an ignored area
    assert batches(frames, 6, workers=2) == alone
    assert batches(frames, 6, seed=1) != alone


def test_a_frame_met_again_is_augmented_anew(frames):
    pictures = [c for b in batches(frames[:1], 5) for c in b]
    assert len({image for _, image, *_ in pictures}) == 10


def test_two_processes_see_the_batches_of_one_with_twice_the_size(frames):
    parts = [
        batches(frames, 4, sampler=TrainingSampler(frames, SamplerConfig(), rank=r, world=2))
        for r in range(2)
    ]
    for alone, *together in zip(batches(frames, 4, size=4), *parts, strict=True):
        assert sorted(alone) == sorted(together[0] + together[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_that_can_be_mended_stays_one_sentence(frames, workers):
    frames = [replace(frame, path=None) for frame in frames]
    with pytest.raises(KitError, match=r"^frame f\d has no image file; training needs one$"):
        batches(frames, 1, workers=workers)


def test_a_sample_travels_in_few_bytes(frames):
    """A byte a pixel of the image, a bit a pixel of the masks' boxes and of the ignored area, 40 a cell."""
    frame = frames[1]
    whole = AugmentConfig(cell_centred=0.0, flip=False, rot90=False)
    dataset = loader(frames, whole, ("cort",), TrainingSampler(frames, SamplerConfig()), 1)._batches.dataset
    size = len(pickle.dumps(dataset[1, 0]))
    pixels = frame.height * frame.width
    content = pixels + pixels / 8 + 6 * 81 / 8 + 6 * 40
    assert content < size < content + 1500
    assert not any(isinstance(getattr(dataset[1, 0], name), torch.Tensor) for name in PackedSample.__slots__)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_goes_on_after_the_last_batch_drawn(frames, workers):
    unbroken = batches(frames, 7)
    sampler = TrainingSampler(frames, SamplerConfig())
    assert batches(frames, 4, workers=workers, sampler=sampler) == unbroken[:4]
    assert sampler.state_dict() == {"position": 8}  # not what workers have read ahead
    resumed = TrainingSampler(frames, SamplerConfig())
    resumed.load_state_dict(sampler.state_dict())
    assert batches(frames, 3, workers=workers, sampler=resumed) == unbroken[4:]
