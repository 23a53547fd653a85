"""Many new images: predicted, post-processed and written, in a folder from which a second call goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kitlib import config as configs
from kitlib import export, files, predict, records
from kitlib.data import images, planes, tiff
from kitlib.data.config import Findings, ReadingConfig
from kitlib.errors import KitError
from kitlib.post import thresholds
from kitlib.post.config import PostConfig
from kitlib.predict import PredictConfig, PredictJob
from kitlib.records import Frame
from kitlib.runtime.progress import Bar
from kitlib.stages.new_images import NewImage

#: Of the output folder: what a second call goes on from.
_STATE = ".kit"


@dataclass(frozen=True)
class Recipe:
    """How cells are found in an image.

    Attributes:
        weights: checkpoints, an ensemble if several.
        predict: how instances are found; images larger than a tile are cut into tiles.
        post: which instances become cells.
        reading: which planes and channels the network sees.
    """

    weights: tuple[Path, ...]
    predict: PredictConfig
    post: PostConfig
    reading: ReadingConfig


@dataclass(frozen=True)
class Segmented:
    """What became of the images.

    Attributes:
        images: how many have their files.
        cells: in these images.
        unchanged: how many of them were finished by an earlier call with the same settings.
        limited: how many of them have as many instances as ``max_cells`` allows, before post-processing, so
            that cells may be missing.
        skipped: why an image was left out, by id.
    """

    images: int
    cells: int
    unchanged: int
    limited: int
    skipped: dict[str, str]


def segment(
    recipe: Recipe,
    found: Sequence[NewImage],
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
        found: images, as ``new_images.find`` lists them.
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
    skipped = _predict(state, found, gpus)
    settings = files.fingerprint(configs.dumps(recipe.post), *chosen, str(pixel_size))
    stamps, unchanged, limited = [], 0, 0
    with Bar(len(found), "write", key="images", shown=()) as bar:
        for number, image in enumerate(found, 1):
            if image.frame.id not in skipped:
                key = files.fingerprint(state.key(image), settings)
                try:
                    done = state.finished(image, key)
                    unchanged += done is not None
                    stamps.append(done or _write(state, image, key, out, chosen, pixel_size))
                    limited += state.limited(image).is_file()
                except KitError as error:
                    skipped[image.frame.id] = str(error)
            bar({"images": number})
    export.join(out, [{name: out / place for name, place in done["files"].items()} for done in stamps])
    shutil.rmtree(state.pictures, ignore_errors=True)
    return Segmented(len(stamps), sum(done["cells"] for done in stamps), unchanged, limited, skipped)


class _State:
    """What a folder of results remembers: the instances of each image before post-processing, in a file that
    is called by weights, settings and image; and of which of them, and how, an image's files were made.

    Attributes:
        pictures: the folder of images that were converted for the network, while a call runs.
    """

    def __init__(self, folder: Path, recipe: Recipe):
        self.folder, self.recipe, self.pictures = folder, recipe, folder / "pictures"
        for path in recipe.weights:
            if not path.is_file():
                raise KitError(f"{path} does not exist; train again, or name another checkpoint")
        self._model = files.fingerprint(*recipe.weights, configs.dumps(recipe.predict))

    def key(self, image: NewImage) -> str:
        reading, file = image.reading, image.path.stat()
        choice = (str(value) for value in (reading.channel, reading.plane, reading.projection))
        made_of = (str(image.path), str(file.st_size), str(file.st_mtime_ns), *choice)
        return files.fingerprint(self._model, *made_of)

    def instances(self, image: NewImage) -> Path:
        return self.folder / "instances" / f"{self.key(image)}.npz"

    def limited(self, image: NewImage) -> Path:
        """A file that is there where the instances are as many as ``max_cells`` allows."""
        return self.instances(image).with_suffix(".limited")

    def shown(self, image: NewImage) -> Frame:
        """The image as a frame with the file that the network sees.

        Raises:
            KitError: it cannot be read.
        """
        if planes.is_plain(image.path, image.reading):
            return image.frame
        findings = Findings(self.pictures)
        return planes.converted(image.frame, image.path, image.reading, self.pictures, findings)

    def finished(self, image: NewImage, key: str) -> dict[str, Any] | None:
        """The stamp of an image whose files are there and were made with this key."""
        path = self._stamp(image)
        stamp = files.read_json(path) if path.is_file() else {}
        if stamp.get("key") != key:
            return None
        whole = all((self.folder.parent / name).is_file() for name in stamp["files"].values())
        return stamp if whole else None

    def finish(self, image: NewImage, stamp: dict[str, Any]) -> None:
        files.write_json(self._stamp(image), stamp)

    def _stamp(self, image: NewImage) -> Path:
        return self.folder / "finished" / f"{image.frame.id}.json"


def _predict(state: _State, found: Sequence[NewImage], gpus: int) -> dict[str, str]:
    """Have the images predicted of which no instances are stored; why images were left out, by id."""
    left = [image for image in found if not state.instances(image).is_file()]
    shown, skipped = _shown(state, left)
    if not shown:
        if left and len(left) == len(found):
            raise KitError(f"not one image could be predicted; {next(iter(skipped.values()))}")
        return skipped
    job = PredictJob(
        weights=tuple(map(str, state.recipe.weights)),
        frames=str(records.write_frames(state.folder / "frames.npz", shown.values())),
        out=str(state.folder / "predictions.csv"),
        config=state.recipe.predict,
    )
    try:
        predicted = predict.run(job, predict.gpu_count(gpus))
    except KitError as error:
        if len(left) == len(found):
            raise
        # Images that an earlier call predicted have their files all the same.
        return skipped | dict.fromkeys(shown, str(error))
    frames = {frame.id: frame for frame in predicted.frames if frame.id not in predicted.skipped}
    for image in left:
        if image.frame.id in frames:
            records.write_frames(state.instances(image), [frames[image.frame.id]])
            if image.frame.id in predicted.limited:
                files.write_text(state.limited(image), "")
    for path in (job.frames, job.out):
        Path(path).unlink(missing_ok=True)
    return skipped | predicted.skipped


def _shown(state: _State, found: Sequence[NewImage]) -> tuple[dict[str, Frame], dict[str, str]]:
    """The images as frames that the network reads at once, and why others cannot be read, by id."""
    shown, unreadable = {}, {}
    with Bar(len(found), "read", key="images", shown=()) as bar:
        for number, image in enumerate(found, 1):
            try:
                shown[image.frame.id] = state.shown(image)
            except KitError as error:
                unreadable[image.frame.id] = str(error)
            bar({"images": number})
    return shown, unreadable


def _write(
    state: _State, image: NewImage, key: str, out: Path, formats: Sequence[str], pixel_size: float | None
) -> dict[str, Any]:
    """Write an image's files; the stamp that says so."""
    (found,) = records.read_frames(state.instances(image))
    shown = state.shown(image)
    assert shown.path is not None
    result = export.Result(
        frame=thresholds.apply(replace(found, path=image.path), state.recipe.post),
        image=planes.read_channels(image.path, image.reading),
        shown=images.read_image(shown.path),
        pixel_size=tiff.pixel_size(image.path) if pixel_size is None else pixel_size,
        limited=state.limited(image).is_file(),
    )
    paths = export.write(result, out, formats)
    places = {name: path.relative_to(out).as_posix() for name, path in paths.items()}
    stamp = {"key": key, "cells": len(result.frame.cells), "files": places}
    state.finish(image, stamp)
    return stamp
