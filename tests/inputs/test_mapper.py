"""The mapper end to end: image and masks stay together, whatever is done to them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.inputs.mapper import FramePool, Mapper, copy_paste
from kitlib.inputs.patch import Patch, PatchCell
from kitlib.masks import rle
from kitlib.records import Cell, Frame

HEIGHT, WIDTH = 130, 176
TYPES = ("astro", "cort", "shsy5y")


def cells(number: int, seed: int = 0) -> list[np.ndarray]:
    """(H, W) masks: ellipses, some over the edge, the first with a hole."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((number, HEIGHT, WIDTH), np.uint8)
    for i, mask in enumerate(masks):
        centre = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        axes = int(rng.integers(6, 25)), int(rng.integers(6, 25))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        if i == 0:
            cv2.circle(mask, centre, 3, 0, -1)
    return list(masks.astype(bool))


@pytest.fixture
def write(tmp_path):
    """Frames on disk: ``write(masks, image)``."""

    def frame(masks, image, name="f", category="cort", **others) -> Frame:
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.asarray(image, np.uint8)).save(path)
        members = tuple(Cell(rle.from_mask(m), category) for m in masks)
        return Frame(name, path, *np.shape(image), members, category, **others)

    return frame


def masks_of(sample) -> list[np.ndarray]:
    """The sample's masks as full (h, w) arrays."""
    masks, full = sample["instances"].gt_masks, []
    for (x, y, w, h), start in zip(masks.boxes.tolist(), masks.offsets.tolist(), strict=True):
        mask = np.zeros(masks.image_size, bool)
        mask[y : y + h, x : x + w] = masks.storage[start : start + w * h].view(h, w).numpy()
        full.append(mask)
    return full


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1)


# -------------------------------------------------------------------------------- what comes out


def test_the_sample_is_what_detectron2_asks_for(write):
    masks = cells(5)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH))
    frame = write(masks, image, category="shsy5y", weight=0.5)
    sample = Mapper(AugmentConfig(flip=False, rot90=False), TYPES)(frame, np.random.default_rng(0)).unpack()
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].is_contiguous()
    np.testing.assert_array_equal(sample["image"].numpy(), image[None])
    assert sample["image_id"] == "f"
    assert (sample["height"], sample["width"], sample["weight"]) == (HEIGHT, WIDTH, 0.5)
    instances = sample["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_classes.tolist() == [2] * 5
    assert instances.gt_boxes.tensor.tolist() == rle.boxes([c.mask for c in frame.cells]).tolist()
    for found, mask in zip(masks_of(sample), masks, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_a_frame_without_cells(write):
    frame = write([], np.zeros((HEIGHT, WIDTH)))
    settings = AugmentConfig(scale=(1.5, 2), crop=(64, 64), copy_paste=1, noise=3)
    sample = Mapper(settings, TYPES)(frame, np.random.default_rng(0)).unpack()
    assert sample["image"].shape == (1, 64, 64)
    assert len(sample["instances"]) == 0
    assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
    assert sample["instances"].gt_classes.dtype == torch.int64


def test_one_class_takes_every_cell(write):
    frame = write(cells(3), np.zeros((HEIGHT, WIDTH)), category="a172")
    sample = Mapper(AugmentConfig(), ("cell",))(frame, np.random.default_rng(0)).unpack()
    assert sample["instances"].gt_classes.tolist() == [0, 0, 0]


def test_an_unknown_cell_type_is_named(write):
    frame = write(cells(3), np.zeros((HEIGHT, WIDTH)), category="corrt")
    with pytest.raises(KitError, match="unknown cell type in frame f: 'corrt': did you mean 'cort'"):
        Mapper(AugmentConfig(), TYPES)(frame, np.random.default_rng(0))


def test_a_frame_without_an_image_is_named(write):
    frame = dataclasses.replace(write(cells(1), np.zeros((HEIGHT, WIDTH))), path=None)
    with pytest.raises(KitError, match="frame f has no image"):
        Mapper(AugmentConfig(), TYPES)(frame, np.random.default_rng(0))


# -------------------------------------------------------------------------------- image and masks together


EXACT = {
    "flips and rotations": AugmentConfig(),
    "crop": AugmentConfig(crop=(70, 50)),
    "padded crop": AugmentConfig(crop=(150, 220)),
}
SCALED = {
    "scale": AugmentConfig(scale=(0.6, 2.5)),
    "scale and crop": AugmentConfig(scale=(1.2, 2.5), crop=(150, 150)),
}


def each_cell_as_image(write, settings: AugmentConfig, seeds: int):
    """For each cell of a frame: its mask in the sample, and what a picture of that mask alone becomes.

    The same generator makes the same choices, so the picture is transformed as the image is, at full frame.
    """
    settings = dataclasses.replace(settings, min_visible=0.0)
    masks = cells(9)
    for seed in range(seeds):
        for i, mask in enumerate(masks):
            frame = write(masks, 255 * mask)
            mapper = Mapper(settings, tuple(map(str, range(len(masks)))))
            sample = mapper(numbered(frame), np.random.default_rng(seed)).unpack()
            picture = sample["image"][0].numpy()
            found = np.zeros(picture.shape, bool)
            for label, part in zip(sample["instances"].gt_classes.tolist(), masks_of(sample), strict=True):
                found |= part & (label == i)
            yield found, picture


def numbered(frame: Frame) -> Frame:
    members = (dataclasses.replace(c, category=str(i)) for i, c in enumerate(frame.cells))
    return dataclasses.replace(frame, cells=tuple(members))


@pytest.mark.parametrize("name", EXACT)
def test_masks_go_with_the_image_exactly(write, name):
    seen = 0
    for found, picture in each_cell_as_image(write, EXACT[name], seeds=4):
        np.testing.assert_array_equal(found, picture == 255)
        seen += picture.any()
    assert seen > 10


@pytest.mark.parametrize("name", SCALED)
def test_scaled_masks_go_with_the_image(write, name):
    seen = 0
    for found, picture in each_cell_as_image(write, SCALED[name], seeds=5):
        wrong = found != (picture >= 128)
        # cv2 reckons 8-bit levels in fixed point: only where the edge runs through a pixel may it differ.
        assert (np.abs(picture[wrong] - 127.5) <= 2).all()
        if (picture >= 128).sum() >= 100:
            assert iou(found, picture >= 128) > 0.97
            seen += 1
    assert seen >= 8


def test_pasted_cells_come_with_their_pixels(write):
    dark = write(cells(6, 1), np.full((HEIGHT, WIDTH), 100), "dark")
    masks = cells(8, 2)
    image = np.full((HEIGHT, WIDTH), 100)
    image[np.any(masks, axis=0)] = 220
    bright = write(masks, image, "bright")
    mapper = Mapper(AugmentConfig(copy_paste=1.0, crop=(100, 100)), TYPES)
    pasted = 0
    for seed in range(20):
        sample = mapper(dark, np.random.default_rng(seed), FramePool([bright])).unpack()
        level = sample["image"][0].numpy()
        levels = [level[mask] for mask in masks_of(sample)]
        pasted += sum(inside.min() > 200 for inside in levels)
        # The frame's own cells have lost what was covered; they may keep some of the halo.
        assert all(inside.min() > 200 or inside.mean() < 125 for inside in levels)
    assert pasted > 20


@pytest.mark.parametrize("name", EXACT)
def test_the_ignored_area_goes_with_the_image(write, name):
    """A white cell is ignored on a black image: its pixels, and they alone, are bright and ignored."""
    masks = cells(9)
    for seed, mask in enumerate(masks):
        frame = write(masks, 255 * mask, ignore=rle.from_mask(mask))
        sample = Mapper(EXACT[name], TYPES)(frame, np.random.default_rng(seed)).unpack()
        bright = sample["image"][0].numpy() == 255
        assert sample["instances"].has("gt_ignored") == bright.any()
        if bright.any():
            corners = cv2.integral(bright.view(np.uint8))
            np.testing.assert_array_equal(sample["instances"].gt_ignored.table.numpy(), corners)


def test_an_ignored_area_changes_nothing_else(write):
    frame = write(cells(10), np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)))
    partly_ignored = dataclasses.replace(frame, ignore=rle.from_mask(cells(1, 3)[0]))
    mapper = Mapper(AugmentConfig(scale=(0.5, 2), crop=(90, 90), copy_paste=0.5, noise=4), TYPES)
    for seed in range(8):
        plain, ours = (
            mapper(f, np.random.default_rng(seed), FramePool([f])).unpack() for f in (frame, partly_ignored)
        )
        assert torch.equal(plain["image"], ours["image"])
        assert torch.equal(plain["instances"].gt_masks.storage, ours["instances"].gt_masks.storage)
        assert not plain["instances"].has("gt_ignored")


# -------------------------------------------------------------------------------- boxes, chance


def test_boxes_are_tight_and_nothing_is_empty(write):
    frame = write(cells(40), np.zeros((HEIGHT, WIDTH)))
    mapper = Mapper(AugmentConfig(scale=(0.4, 2), crop=(80, 80), copy_paste=0.5), TYPES)
    for seed in range(10):
        sample = mapper(frame, np.random.default_rng(seed)).unpack()
        for box, mask in zip(sample["instances"].gt_boxes.tensor.tolist(), masks_of(sample), strict=True):
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_generator_settles_everything(write):
    frame = write(cells(10), np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)))
    grey = {"brightness": 0.2, "contrast": 0.2, "gamma": 0.2, "blur": 1, "noise": 4}
    settings = AugmentConfig(scale=(0.5, 2), crop=(90, 90), copy_paste=0.5, **grey)
    mapper, pool = Mapper(settings, TYPES), FramePool([frame])
    first, again = (mapper(frame, np.random.default_rng(5), pool).unpack() for _ in range(2))
    other = mapper(frame, np.random.default_rng(6), pool).unpack()
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["instances"].gt_masks.storage, again["instances"].gt_masks.storage)
    assert not torch.equal(first["image"], other["image"])


def test_800_cells(write):
    rng = np.random.default_rng(0)
    corners = np.stack([rng.integers(0, WIDTH - 8, 800), rng.integers(0, HEIGHT - 8, 800)], axis=1)
    crops = [rle.from_crop(np.ones((8, 8)), int(x), int(y), HEIGHT, WIDTH) for x, y in corners]
    frame = write([], np.zeros((HEIGHT, WIDTH)))
    frame = dataclasses.replace(frame, cells=tuple(Cell(m, "cort") for m in crops))
    sample = Mapper(AugmentConfig(scale=(2, 2), flip=False, rot90=False), TYPES)(frame, rng).unpack()
    boxes = sample["instances"].gt_boxes.tensor
    assert len(boxes) == 800
    np.testing.assert_array_equal(boxes[:, :2].numpy(), 2 * corners)
    assert (boxes[:, 2:] - boxes[:, :2] == 16).all()


# -------------------------------------------------------------------------------- pasted cells


def frame_of(name: str, category: str | None, cells: int = 1) -> Frame:
    mask = rle.from_crop(np.ones((3, 3)), 0, 0, 10, 10)
    return Frame(name, None, 10, 10, (Cell(mask, category or "cell"),) * cells, category)


def square(x: int, y: int, side: int, label: int) -> PatchCell:
    return PatchCell(x, y, np.ones((side, side), bool), label, float(side * side))


def test_partners_are_of_the_same_type_and_have_cells():
    frames = [
        frame_of("a", "cort"),
        frame_of("b", "cort"),
        frame_of("c", "astro"),
        frame_of("d", "cort", cells=0),
    ]
    pool, rng = FramePool(frames), np.random.default_rng(0)
    assert {pool.partner(frames[0], rng).id for _ in range(50)} == {"a", "b"}
    assert pool.partner(frames[2], rng).id == "c"
    assert pool.partner(frame_of("e", "shsy5y"), rng).id == "e"


def test_annotated_and_pseudo_labelled_frames_do_not_mix():
    """A sample has one weight: the other's cells would count too much or too little."""
    frames = [frame_of(name, "cort") for name in "abcd"]
    frames[2:] = [
        dataclasses.replace(f, cells=tuple(dataclasses.replace(c, score=0.9) for c in f.cells))
        for f in frames[2:]
    ]
    pool, rng = FramePool(frames), np.random.default_rng(0)
    assert {pool.partner(frames[0], rng).id for _ in range(50)} == {"a", "b"}
    assert {pool.partner(frames[2], rng).id for _ in range(50)} == {"c", "d"}


def test_pasted_cells_take_pixels_and_masks_from_what_they_cover():
    patch = Patch(np.full((60, 60), 100, np.uint8), (square(10, 10, 20, 0), square(41, 41, 3, 1)))
    image = np.full((60, 60), 130, np.uint8)  # a brighter background
    image[20:50, 20:50] = 200
    donor = Patch(image, (square(20, 20, 30, 7),))
    found = copy_paste(patch, donor, 0.25, np.random.default_rng(0))
    assert [c.label for c in found.cells] == [0, 7]  # the small cell is covered whole
    assert (found.image[20:50, 20:50] == 170).all()  # the donor's grey level, on the patch's background
    assert found.cells[0].mask.sum() == 400 - 100
    assert (found.image[:15, :15] == 100).all()
    halo = found.image[35, 16:20].astype(int)
    assert (np.abs(np.diff(halo)) <= 20).all()
    assert (patch.image == 100).all()  # the original is left alone


def test_up_to_half_of_the_donors_cells_are_pasted():
    patch = Patch(np.zeros((100, 100), np.uint8), ())
    donor = Patch(np.zeros((100, 100), np.uint8), tuple(square(x, 5, 4, x) for x in range(0, 100, 10)))
    rng = np.random.default_rng(0)
    numbers = [len(copy_paste(patch, donor, 0.25, rng).cells) for _ in range(200)]
    assert set(numbers) == set(range(1, 7))


def test_a_cell_at_the_edge_and_a_donor_without_cells():
    patch = Patch(np.zeros((30, 30), np.uint8), (square(0, 0, 30, 0),))
    donor = Patch(np.zeros((30, 30), np.uint8), (square(25, 25, 5, 1),))
    assert [c.label for c in copy_paste(patch, donor, 0.25, np.random.default_rng(0)).cells] == [0, 1]
    assert copy_paste(patch, Patch(donor.image, ()), 0.25, np.random.default_rng(0)) is patch


@pytest.mark.parametrize("category", ["cort", None])
def test_a_pool_without_frames_gives_the_frame_back(category):
    alone = frame_of("a", category, cells=0)
    assert FramePool([alone]).partner(alone, np.random.default_rng(0)) is alone
