"""What the runners of all tools share: the data, the clock of CPU minutes, and the files that they leave.

A runner works in an environment of its tool's own, without kitlib: this module needs numpy and pycocotools.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from math import cos, pi
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


class Image(NamedTuple):
    """An image with its true cells.

    Attributes:
        id: its name.
        pixels: (H, W) uint8.
        labels: (H, W) int32; 0 is background, and each other number one cell.
    """

    id: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]


class Instances(NamedTuple):
    """What one setting of a tool finds in an image.

    Attributes:
        setting: in words, e.g. "NMS 0.3".
        masks: (N, H, W) bool, or the (H, W) label image of cells 1 to N.
        scores: (N,) in 0..1, by which weak instances may be left out.
    """

    setting: str
    masks: NDArray
    scores: NDArray


#: Best instances of an image that are kept, as many as COCO's AP counts here.
MOST_INSTANCES = 2000

#: Finds the instances of an image with each setting that is to be compared, the tool's default first.
Predictor = Callable[[NDArray[np.uint8]], Iterator[Instances]]


#: Starts the clock of a training, which is handed what saves a checkpoint to a path.
Start = Callable[[Callable[[Path], None]], "Clock"]


def images(folder: Path, part: str) -> list[Image]:
    """The images of a part, "training" or "validation", of a folder that ``prepare.py`` made."""
    names = json.loads((folder / "split.json").read_text("utf-8"))[part]
    return [
        Image(name, np.load(folder / "images" / f"{name}.npy"), np.load(folder / "labels" / f"{name}.npy"))
        for name in names
    ]


def median_diameter(training: Sequence[Image]) -> float:
    """The diameter, in pixels, of the disc with the area of the median cell."""
    areas = np.concatenate([np.bincount(image.labels.ravel())[1:] for image in training])
    return float(2 * np.sqrt(np.median(areas[areas > 0]) / pi))


class Clock:
    """The CPU minutes of a training, of all threads of this process, and the checkpoints that are due.

    Args:
        minutes: when checkpoints are due, ascending; training ends with the last one.
        save: writes a checkpoint to a path.
        folder: where checkpoints go.
    """

    def __init__(self, minutes: Sequence[float], save: Callable[[Path], None], folder: Path) -> None:
        self._begun = time.process_time()
        self._due, self._save, self._folder = list(minutes), save, folder
        self.minutes, self.steps = minutes[-1], 0
        self.reached: dict[str, dict[str, float]] = {}

    @property
    def spent(self) -> float:
        """Minutes since the clock was made."""
        return (time.process_time() - self._begun) / 60

    def step(self, count: int = 1) -> bool:
        """Count training steps and save a checkpoint that is due; whether there is time for another step."""
        self.steps += count
        while self._due and self.spent >= self._due[0]:
            self._checkpoint()
        return bool(self._due)

    def finish(self) -> None:
        """Save the checkpoints that are still due: training has ended before its time."""
        while self._due:
            self._checkpoint()

    def _checkpoint(self) -> None:
        name = f"{self._due.pop(0):g}"
        self.reached[name] = {"cpu_minutes": round(self.spent, 2), "steps": self.steps}
        self._save(checkpoint(self._folder, name))

    def rate(self) -> float:
        """The factor on the highest learning rate: a short rise, a plateau, a cosine from half time."""
        share = min(self.spent / self.minutes, 1.0)
        if share < 0.5:
            return min(1.0, 0.02 + share / 0.03)
        return 0.02 + 0.98 * (1 - cos(2 * pi * share)) / 2


def checkpoint(folder: Path, name: str) -> Path:
    """The file of the checkpoint that was due after so many minutes, as HDF5 or as PyTorch writes it."""
    return folder / f"checkpoint_{name}.weights.h5"


def run(
    train: Callable[[Sequence[Image], Start], None],
    load: Callable[[Path, Sequence[Image]], Predictor],
    packages: Sequence[str],
) -> None:
    """Train, then predict the validation images with each checkpoint; what is done already is not done again.

    Args:
        train: trains until the time of the clock that it starts is up.
        load: a predictor with the weights of a checkpoint; it is also given the training images.
        packages: whose versions are noted.
    """
    options = argparse.ArgumentParser()
    options.add_argument("data", type=Path, help="a folder that prepare.py made")
    options.add_argument("out", type=Path)
    options.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20, 30], help="of checkpoints")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    training, done = images(given.data, "training"), given.out / "training.json"
    if not done.exists():
        clocks: list[Clock] = []

        def start(save: Callable[[Path], None]) -> Clock:
            clocks.append(Clock(given.minutes, save, given.out))
            return clocks[-1]

        train(training, start)
        machine = {"python": platform.python_version(), **{name: version(name) for name in packages}}
        _write(done, {"versions": machine, "images": len(training), "checkpoints": clocks[-1].reached})
    validation = images(given.data, "validation")
    for name in json.loads(done.read_text("utf-8"))["checkpoints"]:
        path = given.out / f"predictions_{name}.json"
        if not path.exists():
            _write(path, _predict(load(checkpoint(given.out, name), training), validation))


def _predict(predictor: Predictor, validation: Sequence[Image]) -> dict[str, Any]:
    """Instances by setting, as COCO's results, and the CPU seconds that the first setting takes an image."""
    seconds = 0.0
    results: dict[str, list[dict[str, Any]]] = {}
    for image in validation:
        begun = time.process_time()
        for number, found in enumerate(predictor(image.pixels)):
            if number == 0:
                seconds += time.process_time() - begun
            results.setdefault(found.setting, []).extend(_as_coco(image.id, found))
    return {"seconds_an_image": round(seconds / len(validation), 3), "settings": results}


def _as_coco(name: str, found: Instances) -> list[dict[str, Any]]:
    rows = []
    for number in np.argsort(-found.scores, kind="stable")[:MOST_INSTANCES]:
        mask = found.masks[number] if found.masks.ndim == 3 else found.masks == number + 1
        if mask.any():
            code = coco.encode(np.asfortranarray(mask, np.uint8))
            code = {"size": code["size"], "counts": code["counts"].decode("ascii")}
            score = round(float(found.scores[number]), 4)
            rows.append({"image_id": name, "segmentation": code, "score": score})
    return rows


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON; a run that is ended meanwhile leaves no half file."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value), "utf-8")
    os.replace(temporary, path)
