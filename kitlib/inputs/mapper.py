"""From a frame to a training sample."""

from __future__ import annotations

from functools import partial

from numpy.random import Generator

from kitlib.data.images import read_image
from kitlib.errors import KitError, unknown
from kitlib.inputs.augment import draw_view, orient, photometric
from kitlib.inputs.config import OFF, AugmentConfig, Size
from kitlib.inputs.mixing import FramePool, copy_paste, draw_corners, mosaic
from kitlib.inputs.patch import Patch, crop, flip_x, resize, take
from kitlib.inputs.sample import PackedSample
from kitlib.records import Cell, Frame

# Every cell is of the one class: pretraining as the paper does it.
ONE_CLASS = ("cell",)


class Mapper:
    """Makes a training sample of a frame. All randomness comes from the generator that each call is given.

    Args:
        config: what may be done to the image.
        categories: the classes in the model's order; ``("cell",)`` takes every cell as class 0.
        train: if False, the whole frame is taken as it is, whatever ``config`` says.
    """

    def __init__(self, config: AugmentConfig, categories: tuple[str, ...], train: bool = True) -> None:
        self.config = config if train else OFF
        self.categories = tuple(categories)

    def __call__(self, frame: Frame, rng: Generator, pool: FramePool | None = None) -> PackedSample:
        """The sample of one frame.

        Args:
            pool: where mosaics and pasted cells take their other frames from; without it, from the frame
                itself.

        Raises:
            KitError: the image cannot be read, or a cell's category is not among ``categories``.
        """
        pool = pool or FramePool([frame])
        patch = orient(self.patch(frame, rng, pool), self.config, rng)
        return PackedSample.from_patch(patch, photometric(patch.image, self.config, rng), frame)

    def patch(self, frame: Frame, rng: Generator, pool: FramePool) -> Patch:
        """The sample's image and cells before flips and photometric changes."""
        config = self.config
        patch = self._mosaic(frame, rng, pool) if rng.random() < config.mosaic else self._look(frame, rng)
        if rng.random() < config.copy_paste:
            donor = self._look(pool.partner(frame, rng), rng, patch.size)
            donor = flip_x(donor) if config.flip and rng.random() < 0.5 else donor
            patch = copy_paste(patch, donor, config.min_visible, rng)
        return patch

    def _look(self, frame: Frame, rng: Generator, size: Size | None = None) -> Patch:
        """A random view of one frame; of the given size if there is one."""
        view = draw_view(frame, self.config, rng, size)
        if frame.path is None:
            raise KitError(f"frame {frame.id} has no image file; training needs one")
        image = read_image(frame.path, frame.height, frame.width)
        patch = resize(take(frame, image, partial(self._label, frame), view.source, view.near()), view.size)
        return crop(patch, view.window, self.config.min_visible)

    def _mosaic(self, frame: Frame, rng: Generator, pool: FramePool) -> Patch:
        sizes = draw_corners(self.config.crop or (frame.height, frame.width), rng)
        frames = [frame, *(pool.partner(frame, rng) for _ in range(3))]
        return mosaic(*(self._look(f, rng, size) for f, size in zip(frames, sizes, strict=True)))

    def _label(self, frame: Frame, cell: Cell) -> int:
        if self.categories == ONE_CLASS:
            return 0
        if cell.category not in self.categories:
            raise unknown(f"cell type in frame {frame.id}:", cell.category, self.categories)
        return self.categories.index(cell.category)
