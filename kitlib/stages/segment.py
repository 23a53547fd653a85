"""New images, segmented with the result of a run: what ``kit predict`` and ``kitlib.load`` do."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kitlib import config as configs
from kitlib import export, files, predict, records
from kitlib.data import images, tiff
from kitlib.errors import KitError
from kitlib.export.pictures import grey
from kitlib.offline import is_image
from kitlib.post import thresholds
from kitlib.post.config import PostConfig, Tuned
from kitlib.predict import PredictConfig, PredictJob
from kitlib.predict.models import load_models
from kitlib.predict.predictor import Predictor
from kitlib.records import Frame
from kitlib.runtime.progress import Bar
from kitlib.stages import record
from kitlib.stages.notebooks import STAGES, whole_path
from kitlib.stages.stage import Stage

#: The side of tiles in pixels, where training frames were not larger, and what neighbours have in common.
_TILE, _OVERLAP = 1024, 256
#: Instances of an image: one that is cut into tiles may have many more than a competition image.
_MAX_CELLS = 20_000
#: Of the output folder: what a second call goes on from.
_STATE = ".kit"


@dataclass(frozen=True)
class Recipe:
    """How cells are found in an image.

    Attributes:
        weights: checkpoints, an ensemble if several.
        predict: how instances are found; images larger than a tile are cut into tiles.
        post: which instances become cells.
    """

    weights: tuple[Path, ...]
    predict: PredictConfig
    post: PostConfig


def recipe(source: Path | str) -> Recipe:
    """How a run's best weights find cells, as its post-processing was tuned; or a single checkpoint.

    A checkpoint alone finds cells at one scale, with the default post-processing. An image without any
    confident cell gets none, also where the submission would keep the best instance.

    Args:
        source: the folder of a run (outputs/demo), or a .pth file that a training wrote.

    Raises:
        KitError: it is neither, or nothing was trained in the run.
    """
    path = whole_path(source)
    if path.is_file():
        return Recipe((path,), _tiled(PredictConfig(), _TILE), PostConfig(keep_best=False))
    if not record.has_results(path / "03_train"):
        raise KitError(
            f"{path} is neither a .pth file of weights nor a run in which 03_train is finished; "
            f"name one of these, or run ./run_all.sh --out {path} first"
        )
    stage = Stage(STAGES[-1], path, path)
    best = stage.best()
    post = configs.load(Tuned, best.post).post
    values = {**stage.views(best.stage), "mask_threshold": post.mask_threshold}
    found = configs.from_dict(PredictConfig, values, f"{path / best.stage / 'config.yaml'}: predict")
    side = max(_TILE, _largest_side(path / best.stage))
    return Recipe(best.weights, _tiled(found, side), replace(post, keep_best=False))


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


# ------------------------------------------------------------------------------------------ one image


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
            KitError: it cannot be read, or is no image.
        """
        if isinstance(image, str | Path):
            path, pixels = Path(image), images.read_image(image)
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
        >>> labels = kitlib.to_labels(frame)
    """
    return Model(recipe(source), device or ("cuda" if predict.gpu_count() else "cpu"))


# ------------------------------------------------------------------------------------------ many images


@dataclass(frozen=True)
class Segmented:
    """What became of the images.

    Attributes:
        images: how many have their files.
        cells: in these images.
        unchanged: how many of them were finished by an earlier call with the same settings.
        skipped: why an image was left out, by id or path.
    """

    images: int
    cells: int
    unchanged: int
    skipped: dict[str, str]


def segment(
    recipe: Recipe,
    frames: Sequence[Frame],
    out: Path,
    formats: Iterable[str] | None = None,
    gpus: int = -1,
    pixel_size: float | None = None,
) -> Segmented:
    """Find the cells of many images and write them into a folder in some formats, with progress bars.

    A call that was interrupted goes on where it stopped, and an image that is finished is not done again,
    unless the image, the weights or the settings are others.

    Args:
        recipe: weights and settings.
        frames: images, as ``find_images`` lists them.
        out: the folder; ``export.write`` says which files an image gets, ``export.join`` which all get.
        formats: names out of ``export.FORMATS``; None for all.
        gpus: how many to use, with a process each; 0: the CPU; -1: all there are.
        pixel_size: micrometres, for the tables; None takes what an image's file says, if anything.

    Raises:
        KitError: no such format, a missing or damaged file of weights, a folder that cannot be written, or
            not one image could be predicted.
    """
    chosen = export.check(formats)
    state = _State(out / _STATE, recipe)
    skipped = _predict(state, frames, gpus)
    settings = files.fingerprint(configs.dumps(recipe.post), *chosen, str(pixel_size))
    written, unchanged, cells = [], 0, 0
    with Bar(len(frames), "write", key="images", shown=()) as bar:
        for number, frame in enumerate(frames, 1):
            if frame.id not in skipped:
                key = files.fingerprint(state.key(frame), settings)
                try:
                    done = state.finished(frame, key)
                    unchanged += done is not None
                    done = done or _write(state, frame, key, out, chosen, pixel_size)
                except KitError as error:
                    skipped[frame.id] = str(error)
                else:
                    written.append({name: out / place for name, place in done["files"].items()})
                    cells += done["cells"]
            bar({"images": number})
    export.join(out, written)
    return Segmented(len(written), cells, unchanged, skipped)


class _State:
    """What a folder of results remembers: the instances of each image before post-processing, in a file that
    is called by weights, settings and image; and of which of them, and how, an image's files were made."""

    def __init__(self, folder: Path, recipe: Recipe):
        self.folder, self.recipe = folder, recipe
        for path in recipe.weights:
            if not path.is_file():
                raise KitError(f"{path} does not exist; train again, or name another checkpoint")
        self._model = files.fingerprint(*recipe.weights, configs.dumps(recipe.predict))

    def key(self, frame: Frame) -> str:
        assert frame.path is not None
        found = frame.path.stat()
        return files.fingerprint(self._model, str(frame.path), str(found.st_size), str(found.st_mtime_ns))

    def instances(self, frame: Frame) -> Path:
        return self.folder / "instances" / f"{self.key(frame)}.npz"

    def finished(self, frame: Frame, key: str) -> dict[str, Any] | None:
        """The stamp of an image whose files are there and were made with this key."""
        path = self._stamp(frame)
        stamp = files.read_json(path) if path.is_file() else {}
        if stamp.get("key") != key:
            return None
        return (
            stamp if all((self.folder.parent / name).is_file() for name in stamp["files"].values()) else None
        )

    def finish(self, frame: Frame, stamp: dict[str, Any]) -> None:
        files.write_json(self._stamp(frame), stamp)

    def _stamp(self, frame: Frame) -> Path:
        return self.folder / "finished" / f"{frame.id}.json"


def _predict(state: _State, frames: Sequence[Frame], gpus: int) -> dict[str, str]:
    """Have the images predicted of which no instances are stored; why images were left out, by id."""
    left = [frame for frame in frames if not state.instances(frame).is_file()]
    if not left:
        return {}
    job = PredictJob(
        weights=tuple(map(str, state.recipe.weights)),
        frames=str(records.write_frames(state.folder / "frames.npz", left)),
        out=str(state.folder / "predictions.csv"),
        config=state.recipe.predict,
    )
    try:
        predicted = predict.run(job, predict.gpu_count(gpus))
    except KitError as error:
        if len(left) == len(frames):
            raise
        # Images that an earlier call predicted have their files all the same.
        return {frame.id: str(error) for frame in left}
    for frame, found in zip(left, predicted.frames, strict=True):
        if frame.id not in predicted.skipped:
            records.write_frames(state.instances(frame), [found])
    for path in (job.frames, job.out):
        Path(path).unlink(missing_ok=True)
    return dict(predicted.skipped)


def _write(
    state: _State, frame: Frame, key: str, out: Path, formats: Sequence[str], pixel_size: float | None
) -> dict[str, Any]:
    """Write an image's files; the stamp that says so."""
    assert frame.path is not None
    (found,) = records.read_frames(state.instances(frame))
    final = thresholds.apply(replace(found, path=frame.path), state.recipe.post)
    size = tiff.pixel_size(frame.path) if pixel_size is None else pixel_size
    paths = export.write(final, images.read_pixels(frame.path), out, formats, size)
    places = {name: path.relative_to(out).as_posix() for name, path in paths.items()}
    stamp = {"key": key, "cells": len(final.cells), "files": places}
    state.finish(frame, stamp)
    return stamp


# ------------------------------------------------------------------------------------------ finding images


def find_images(places: Iterable[str], out: Path | None = None) -> tuple[list[Frame], dict[str, str]]:
    """The images that files, folders and patterns name, as frames without cells.

    Folders are searched with all sub-folders, and an image's id is its path in the folder without extension
    ("plate_1/well_A1"); that of a file that is named by itself is its name. Where two images would have one
    id, their extensions are part of it.

    Args:
        places: files, folders, and patterns such as ``scans/*.tif``.
        out: a folder whose images are results and no input.

    Returns:
        The frames, and why an image cannot be read, by its path.

    Raises:
        KitError: a place names nothing, there is no image, or two images have the same id.
    """
    named: dict[Path, Path] = {}
    for place in places:
        for path, name in _found(place):
            if out is None or out.resolve() not in path.parents:
                named.setdefault(path, name)
    if not named:
        raise KitError("no image was found; name files, folders or patterns such as 'scans/*.tif'")
    count = Counter(name.with_suffix("") for name in named.values())
    frames: dict[str, Frame] = {}
    unreadable: dict[str, str] = {}
    for path, name in named.items():
        identity = (name if count[name.with_suffix("")] > 1 else name.with_suffix("")).as_posix()
        if identity in frames:
            raise KitError(
                f"{path} and {frames[identity].path} would have the same results, '{identity}'; "
                "predict them in two calls, with two folders --out"
            )
        try:
            frames[identity] = Frame(identity, path, *images.image_size(path))
        except KitError as error:
            unreadable[str(path)] = str(error)
    return list(frames.values()), unreadable


def _found(place: str) -> Iterator[tuple[Path, Path]]:
    """Each image of a place, and its path in the folder that the place names."""
    path = whole_path(place)
    if path.is_dir():
        yield from (
            (file, file.relative_to(path)) for file in sorted(path.rglob("*")) if _is_input(file, path)
        )
        return
    matches = (
        [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    )
    if not matches:
        raise KitError(f"{place[:80]} names no file or folder; check the path")
    for match in matches:
        if match.is_dir():
            yield from _found(str(match))
        elif match == path or is_image(match):
            yield match.resolve(), Path(match.name)


def _is_input(file: Path, folder: Path) -> bool:
    """Whether a file is an image, outside hidden folders such as that of results."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and is_image(file) and file.is_file()
