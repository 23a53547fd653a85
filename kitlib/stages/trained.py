"""The result of a run, or a checkpoint: how it finds cells, and as a function from an image to its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kitlib import config as configs
from kitlib import predict, records
from kitlib.data import images, planes
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.export.pictures import grey
from kitlib.post import thresholds
from kitlib.post.config import PostConfig, Tuned
from kitlib.predict import PredictConfig
from kitlib.predict.models import load_models
from kitlib.predict.predictor import Predictor
from kitlib.records import Frame
from kitlib.stages import record, results
from kitlib.stages.notebooks import whole_path
from kitlib.stages.segment import Recipe

#: The side of tiles in pixels, where training frames were not larger, and what neighbours have in common.
_TILE, _OVERLAP = 1024, 256
#: Instances of an image: one that is cut into tiles may have many more than a competition image.
_MAX_CELLS = 100_000


def recipe(source: Path | str, choices: Mapping[str, Any] | None = None) -> Recipe:
    """How a run's best weights find cells, as its post-processing was tuned; or a single checkpoint.

    A checkpoint alone finds cells at one scale, with the default post-processing. An image without any
    confident cell gets none, also where the submission would keep the best instance.

    Args:
        source: the folder of a run (outputs/demo), or a .pth file that a training wrote.
        choices: fields of ``ReadingConfig`` in place of those that the run read its images with.

    Raises:
        KitError: it is neither, nothing was trained in the run, or the choices make no sense.
    """
    path = whole_path(source)
    if path.is_file():
        config, post = _tiled(PredictConfig(), _TILE), PostConfig(keep_best=False)
        return Recipe((path,), config, post, _reading(ReadingConfig(), choices or {}))
    if not record.has_results(path / "03_train"):
        raise KitError(
            f"{path} is neither a .pth file of weights nor a run in which 03_train is finished; "
            f"name one of these, or run ./run_all.sh --out {path} first"
        )
    best = results.best(path)
    post = configs.load(Tuned, best.post).post
    settings = path / best.stage / "config.yaml"
    values = {**results.views(settings), "mask_threshold": post.mask_threshold}
    found = configs.from_dict(PredictConfig, values, f"{settings}: predict")
    side = max(_TILE, _largest_side(path / best.stage))
    reading = _reading(results.reading(path), choices or {})
    return Recipe(best.weights, _tiled(found, side), replace(post, keep_best=False), reading)


def _reading(trained: ReadingConfig, choices: Mapping[str, Any]) -> ReadingConfig:
    """How the training read its images, with other choices where some are given."""
    # A choice of planes takes the place of any other one.
    of_planes = {"plane": None, "projection": None} if {"plane", "projection"} & choices.keys() else {}
    return configs.from_dict(
        ReadingConfig, {**configs.to_dict(trained), **of_planes, **choices}, "reading of images"
    )


def _largest_side(folder: Path) -> int:
    """Of the frames that a stage trained on, in pixels; 0 where they are not there any more."""
    sides = [
        max(frame.height, frame.width)
        for path in folder.rglob("train.npz")
        for frame in records.read_frames(path)
    ]
    return max(sides, default=0)


def _tiled(config: PredictConfig, side: int) -> PredictConfig:
    """With tiles of this side, which leave smaller images whole, where it has none."""
    config = replace(config, max_cells=max(config.max_cells, _MAX_CELLS))
    return config if config.tile else replace(config, tile=(side, side), stride=(side - _OVERLAP,) * 2)


class Model:
    """A trained model as a function from an image to its cells.

    Args:
        recipe: weights and settings.
        device: "cpu" or "cuda".

    Attributes:
        categories: the classes that it knows.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu"):
        ensemble = load_models(recipe.weights, device)
        self.recipe, self.categories = recipe, ensemble.categories
        self._predictor = Predictor(ensemble.models, ensemble.categories, recipe.predict)

    def __call__(self, image: Path | str | NDArray) -> Frame:
        """The image's final cells, best first, without overlap.

        Args:
            image: a file, or (H, W) or (H, W, C) pixels of any type.

        Raises:
            KitError: it cannot be read, is no image, or is a file of several planes or channels of which the
                recipe chooses none; give the pixels of one then.
        """
        if isinstance(image, str | Path):
            path = Path(image)
            pixels = images.to_8_bit(planes.read_frame(path, self.recipe.reading).pixels, path)
            frame = Frame(path.stem, path, *pixels.shape)
        else:
            pixels = grey(np.asarray(image))
            frame = Frame("image", None, *pixels.shape)
        return thresholds.apply(self._predictor(pixels).frames(frame)[0], self.recipe.post)


def load(source: Path | str, device: str = "") -> Model:
    """The best weights of a run, or a checkpoint, ready for images.

    Args:
        source: the folder of a run (outputs/demo), or a .pth file that a training wrote.
        device: "cpu" or "cuda"; empty: a GPU where there is one.

    Raises:
        KitError: as ``recipe``, or the weights cannot be read.

    Example:
        >>> model = kitlib.load("outputs/demo")
        >>> frame = model("well_A1.tif")
        >>> labels = frame.to_labels()
    """
    return Model(recipe(source), device or ("cuda" if predict.gpu_count() else "cpu"))
