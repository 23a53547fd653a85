"""The data of a stage: the competition's folder, or images and cells of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kitlib import export, offline
from kitlib.data import competition, planes, synthetic
from kitlib.data import corrections as manual
from kitlib.data import dataset as datasets
from kitlib.data.config import ReadingConfig
from kitlib.data.images import read_image
from kitlib.data.tiff import pixel_size
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.records import Frame
from kitlib.stages import fitting, results
from kitlib.stages.data_files import CACHE
from kitlib.stages.notebooks import ROOT, named_file, whole_path
from kitlib.stages.parameters import Retraining


@dataclass(frozen=True)
class StageData:
    """Where a stage finds its data and leaves its results.

    Attributes:
        name: "03_train".
        data: the competition's folder, or one of the user's own images.
        out: the run's folder; results of this stage lie in ``out``/<name>.
        bundle: on Kaggle, the folder that takes the place of the earlier stages; results then lie in ``out``.
    """

    name: str
    data: Path
    out: Path
    bundle: Path | None = None

    @property
    def folder(self) -> Path:
        """Where this stage's results lie."""
        return self.out if self.bundle else self.out / self.name

    @property
    def cache(self) -> Path:
        """Files that spare a second reading of the data; the folder may be removed at any time."""
        return self.out / CACHE

    @property
    def is_own(self) -> bool:
        """Whether the data are images of the user's own."""
        return not self.bundle and not datasets.is_competition(self.data)

    @property
    def categories(self) -> tuple[str, ...]:
        """The types of cells; of the user's own images those that 03 trained, none before that."""
        return results.categories(self.out) if self.is_own else competition.CATEGORIES

    @property
    def reading(self) -> ReadingConfig:
        """How 03 has read images of the user's own."""
        return results.reading(self.out)

    def dataset(self, reading: ReadingConfig | None = None, only_labelled: bool = False) -> datasets.Dataset:
        """The frames of the data, ready for training and prediction.

        Args:
            reading: how images of the user's own are read, which later stages then do as well; None: as 03
                has read them.
            only_labelled: as ``kitlib.data.dataset.open_folder`` takes it.

        Raises:
            KitError: as ``kitlib.data.dataset.open_folder``; or no image is labelled, with ``reading`` given.
        """
        chosen = reading or self.reading
        found = datasets.open_folder(self.data, chosen, only_labelled)
        if reading is not None:
            results.keep_reading(self.folder, reading if self.is_own else None)
            if not found.labelled:
                raise KitError(
                    f"{self.data} holds the cells of no image; put label images beside the images, or find "
                    "their cells with the weights of another run: kit predict"
                )
        return datasets.prepared(found, chosen, self.cache / "images") if self.is_own else found

    def corrected(self, frames: Sequence[Frame], corrections: str) -> list[Frame]:
        """The labelled images with cells that were corrected by hand.

        Args:
            frames: as they were annotated.
            corrections: a file of the viewer, see ``kitlib.data.corrections``; "" for none.
        """
        if not corrections:
            return list(frames)
        found = manual.apply(frames, named_file(corrections))
        changed = sum(new is not old for new, old in zip(found, frames, strict=True))
        print(f"{changed} images have the cells of {corrections}")
        return found

    @functools.cached_property
    def _as_trained(self) -> datasets.Dataset:
        """The user's own images as 03 has read them; read once."""
        return self.dataset()

    def unlabelled(self) -> list[Frame]:
        """The images for pseudo labels."""
        return self._as_trained.unlabelled if self.is_own else competition.unlabelled(self.data)

    def test(self) -> list[Frame]:
        """The images to predict, without cells."""
        return self._as_trained.test if self.is_own else competition.submitted(self.data)

    def truth(self) -> list[Frame]:
        """Those of ``test`` whose cells are known, with them."""
        return self._as_trained.truth if self.is_own else competition.truth(self.data) or []

    def refit(self, given: Retraining, earlier: AugmentConfig) -> Retraining:
        """The parameters of 05 with the user's own images at the scales of 03, which their cells decided.

        Args:
            given: the parameters.
            earlier: how 03 augmented.
        """
        return fitting.as_before(given, earlier) if self.is_own else given

    def export(self, frames: Sequence[Frame], images: Sequence[Frame], formats: Sequence[str]) -> None:
        """Write the cells of the user's own images into ``predictions/`` in some formats.

        Args:
            frames: final predictions.
            images: the frames that were predicted, with the paths of their images.
            formats: names out of ``kitlib.export.FORMATS``.
        """
        if not self.is_own or not formats:
            return
        shown, folder = {frame.id: frame.path for frame in images}, self.folder / "predictions"
        # What was predicted may be a copy of 8 bits; the file has the numbers to measure.
        sources = datasets.sources(self.data, self.reading)
        written = []
        for frame in frames:
            path, source = shown[frame.id], sources[frame.id]
            if path is not None:
                pixels = planes.read_channels(source, self.reading)
                result = export.Result(frame, pixels, read_image(path), pixel_size(source))
                written.append(export.write(result, folder, formats))
        export.join(folder, written)
        print(f"{folder}: the cells of {len(written)} images as {', '.join(formats)}")


def locate_data(data: str = "") -> Path:
    """The folder of the data: ``data``, or the competition's folder in it; where that is empty, the one
    attached on Kaggle, or else synthetic cells in outputs/synthetic."""
    if data:
        return datasets.locate(whole_path(data))
    try:
        attached = offline.competition()
    except offline.OfflineError as error:
        raise KitError(f"{error}, or name it in the parameter data") from error
    if attached:
        return competition.locate(attached)
    return competition.locate(synthetic.ensure(ROOT / "outputs" / "synthetic"))


def is_own(data: str) -> bool:
    """Whether ``data``, as a user names it, are images of one's own."""
    return bool(data) and not datasets.is_competition(whole_path(data))
