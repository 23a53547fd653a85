"""From a frame to a training sample: scale, crop, copy-paste, flips and rotation, grey levels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kitlib.data.images import read_image
from kitlib.errors import KitError, unknown
from kitlib.inputs.augment import draw_view, orient, photometric
from kitlib.inputs.config import AugmentConfig, Size
from kitlib.inputs.patch import Patch, PatchCell, crop, flip_x, paste, resize, take
from kitlib.inputs.sample import PackedSample
from kitlib.records import Cell, Frame

# With these categories all cells are of one class, as in the paper's pretraining.
_ONE_CLASS = ("cell",)
# Width, in pixels, of the surroundings pasted with a cell, which has a bright halo in phase contrast.
_HALO = 3


class FramePool:
    """The frames whose cells may be pasted into another frame.

    A frame's partners are of its type. They are pseudo-labelled if the frame is, because all cells of a
    sample have the same weight in the loss.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.partners: dict[tuple[str | None, bool], list[Frame]] = defaultdict(list)
        for frame in frames:
            if frame.cells:
                self.partners[frame.category, frame.pseudo].append(frame)

    def partner(self, frame: Frame, rng: Generator) -> Frame:
        """A random partner of a frame, which may be the frame itself and is if there is no other."""
        partners = self.partners.get((frame.category, frame.pseudo))
        return partners[int(rng.integers(len(partners)))] if partners else frame


class Mapper:
    """Makes training samples. All randomness comes from the generator that a call passes.

    Args:
        config: of the augmentation.
        categories: the cell types in the order of the model's classes; ``("cell",)`` labels every cell 0.
    """

    def __init__(self, config: AugmentConfig, categories: tuple[str, ...]) -> None:
        self.config = config
        self.categories = tuple(categories)

    def __call__(self, frame: Frame, rng: Generator, pool: FramePool | None = None) -> PackedSample:
        """The sample of one frame.

        Args:
            frame: the frame, with an image file.
            rng: the source of randomness.
            pool: the frames whose cells may be pasted; None for the frame itself.

        Raises:
            KitError: the image cannot be read, or a cell's category is not among ``categories``.
        """
        patch = orient(self._patch(frame, rng, pool or FramePool([frame])), self.config, rng)
        return PackedSample.from_patch(patch, photometric(patch.image, self.config, rng), frame)

    def _patch(self, frame: Frame, rng: Generator, pool: FramePool) -> Patch:
        """The sample's image and cells before flips, rotation and photometric changes."""
        config = self.config
        patch = self._crop(frame, rng)
        if rng.random() < config.copy_paste:
            donor = self._crop(pool.partner(frame, rng), rng, patch.size)
            donor = flip_x(donor) if config.flip and rng.random() < 0.5 else donor
            patch = copy_paste(patch, donor, config.min_visible, rng)
        return patch

    def _crop(self, frame: Frame, rng: Generator, size: Size | None = None) -> Patch:
        """A random crop of a frame at a random scale; ``size`` replaces the configuration's size of crops."""
        view = draw_view(frame, self.config, rng, size)
        if frame.path is None:
            raise KitError(f"frame {frame.id} has no image file; training needs one")
        image = read_image(frame.path, frame.height, frame.width)
        near = view.near((frame.height, frame.width))
        patch = resize(take(frame, image, partial(self._label, frame), near), view.size)
        return crop(patch, view.window, self.config.min_visible)

    def _label(self, frame: Frame, cell: Cell) -> int:
        if self.categories == _ONE_CLASS:
            return 0
        if cell.category not in self.categories:
            raise unknown(f"cell type in frame {frame.id}:", cell.category, self.categories)
        return self.categories.index(cell.category)


def copy_paste(patch: Patch, donor: Patch, min_visible: float, rng: Generator) -> Patch:
    """A patch with up to half of a donor's cells pasted over it, at their positions in the donor.

    Pasted grey levels are shifted by the difference of the two medians, so that the backgrounds match.

    Args:
        patch: the patch to paste into.
        donor: a patch of the same size.
        min_visible: cells of the patch are removed unless more than this share of their whole is left.
        rng: the source of randomness.
    """
    if not donor.cells:
        return patch
    number = int(rng.integers(1, len(donor.cells) // 2 + 2))
    chosen = [donor.cells[i] for i in sorted(rng.permutation(len(donor.cells))[:number])]
    image = patch.image.astype(np.float32)
    shift = float(np.median(patch.image)) - float(np.median(donor.image))
    for cell in chosen:
        _blend(image, donor.image, shift, cell)
    return paste(patch, chosen, np.clip(np.rint(image), 0, 255).astype(np.uint8), min_visible)


def _blend(image: NDArray[np.float32], donor: NDArray[np.uint8], shift: float, cell: PatchCell) -> None:
    """Draw one cell of the donor, with a halo that fades out, over ``image`` in place."""
    x0, y0, x1, y1 = cell.box
    left, top = max(x0 - _HALO, 0), max(y0 - _HALO, 0)
    right, bottom = min(x1 + _HALO, image.shape[1]), min(y1 + _HALO, image.shape[0])
    around = (y0 - top, bottom - y1, x0 - left, right - x1)
    mask = cv2.copyMakeBorder(
        np.ascontiguousarray(cell.mask).view(np.uint8), *around, cv2.BORDER_CONSTANT, value=0
    )
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    alpha = np.clip(1 - distance / (_HALO + 1), 0, 1)
    under = image[top:bottom, left:right]
    under += alpha * (donor[top:bottom, left:right] + shift - under)
