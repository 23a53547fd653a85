"""What a training is fed, and in which stages a run trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kitlib import config as configs
from kitlib import files
from kitlib.records import Frame, read_frames
from kitlib.train.config import TrainConfig
from kitlib.viz import style
from kitlib.viz.cells import draw, rainbow

if TYPE_CHECKING:
    from kitlib.inputs.sample import PackedSample

_COLUMNS = 4


@style.styled
def training_samples(frames: Sequence[Frame], config: TrainConfig, count: int = 12) -> Figure:
    """The first samples that a training sees: scaled, cropped and augmented, with the cells that it learns.

    They come from the training's own loader, so these are the images and the targets to the pixel. What
    training ignores is striped.

    Args:
        frames: that train.
        config: of the training.
        count: how many.

    Raises:
        KitError: a frame without an image, or of a type that is not among the configuration's.
    """
    # Imported only now, as they import torch.
    from kitlib.inputs.mapper import Mapper
    from kitlib.train.loader import FrameDataset
    from kitlib.train.sampler import TrainingSampler

    dataset = FrameDataset(frames, Mapper(config.augment, config.categories), config.seed)
    keys = list(islice(TrainingSampler(frames, config.sampler, config.seed), count))
    rows = max(1, -(-count // _COLUMNS))
    figure, axes = style.figure(3 * _COLUMNS, 3.4 * rows, rows, _COLUMNS)
    for panel, key in zip(axes, keys, strict=False):
        sample = dataset[key]
        if isinstance(sample, Exception):
            raise sample
        masks = list(_masks(sample))
        draw(panel, _stretched(sample.image), masks, rainbow(len(masks)), _ignored(sample))
        height, width = sample.image.shape
        name = config.categories[sample.labels[0]] if len(sample.labels) else "no cell"
        title = f"{name}  {style.count(len(masks), 'cell')}, {width} x {height} px"
        style.bare(panel, title + ("" if sample.weight == 1 else f"\nweight in the loss {sample.weight:.2f}"))
    style.blank(axes[len(keys) :])
    return figure


def _masks(sample: PackedSample) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Each cell's mask within its box, and the box."""
    areas = sample.boxes[:, 2:].prod(axis=1)
    pixels = np.unpackbits(sample.mask_bits, count=int(areas.sum())).view(bool)
    ends = np.cumsum(areas)
    for (x, y, width, height), end, area in zip(sample.boxes, ends, areas, strict=True):
        box = np.array([x, y, x + width, y + height])
        yield pixels[end - area : end].reshape(height, width), box


def _ignored(sample: PackedSample) -> NDArray[np.bool_] | None:
    if sample.ignored_bits is None:
        return None
    return np.unpackbits(sample.ignored_bits, count=sample.image.size).reshape(sample.image.shape).view(bool)


def _stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) * (225 / max(high - low, 1)) + 15, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class TrainingStage:
    """One training of a run, as its folder records it.

    Attributes:
        name: its folder within the run, "03_train/fold_0".
        images: frames that it trained on.
        pseudo: how many of them are pseudo-labelled.
        images_per_batch: of one iteration.
        start: what it started from, in words.
        rates: the learning rate of each iteration that was run.
        repeats: how many such trainings there are, one a fold.
        score: of its last evaluation, before tuning; None where there was none.
    """

    name: str
    images: int
    pseudo: int
    images_per_batch: int
    start: str
    rates: tuple[float, ...]
    repeats: int
    score: float | None


def read_training_stages(run: Path) -> list[TrainingStage]:
    """The trainings of a run in their order; of several folds the first stands for all.

    Raises:
        KitError: a file of a training cannot be read.
    """
    jobs = sorted(run.glob("[0-9]*/**/job.yaml"))
    # A fold's folder, or the stage's own; below it lies what was trained on after it.
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for job in jobs:
        parts = job.parent.relative_to(run).parts
        kinds.setdefault(tuple(part for part in parts if not part.startswith("fold_")), []).append(job.parent)
    return [_training_stage(run, folders[0], len(folders)) for folders in kinds.values()]


def _training_stage(run: Path, folder: Path, repeats: int) -> TrainingStage:
    job = configs.load(TrainConfig, folder / "job.yaml")
    frames = read_frames(folder / Path(job.train).name if not Path(job.train).is_file() else job.train)
    table = pd.read_json(folder / "metrics.jsonl", lines=True)
    rates = tuple(table["lr"].dropna().tolist()) if "lr" in table else ()
    result = files.read_json(folder / "result.json") if (folder / "result.json").is_file() else {}
    pseudo = sum(frame.pseudo for frame in frames)
    name = folder.relative_to(run).as_posix()
    start = _start(job.weights)
    return TrainingStage(
        name, len(frames), pseudo, job.images_per_batch, start, rates, repeats, result.get("map")
    )


def _start(weights: str) -> str:
    """What a training started from: the stage whose weights these are, or their name."""
    parts = Path(weights).parts
    stage = next((part for part in parts if part[:2].isdigit() and part[2:3] == "_"), None)
    return (
        f"weights of {stage}" if stage else f"weights: {Path(weights).name}" if weights else "random weights"
    )


@style.styled
def training_stages(stages: Sequence[TrainingStage]) -> Figure:
    """The learning rate through all trainings of a run, one after another (the paper's figure 3b).

    Args:
        stages: of ``read_training_stages``.
    """
    figure, axes = style.figure(3.2 * max(len(stages), 1), 3, 1, max(len(stages), 1))
    top = max([max(stage.rates, default=0.0) for stage in stages] + [1e-12])
    begun = 0
    for panel, stage, color in zip(axes, stages, style.OTHERS * 3, strict=False):
        where = begun + 1 + np.arange(len(stage.rates))
        panel.fill_between(where, stage.rates, color=style.tint(color, 0.35), lw=0)
        panel.plot(where, stage.rates, color=color)
        begun += len(stage.rates)
        panel.set_ylim(0, 1.08 * top)
        panel.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
        panel.set_title(style.short_names([stage.name], 30)[0])
        panel.set_xlabel("\n".join(_facts(stage)), ha="left", x=0, fontsize=8)
    if stages:
        axes[0].set_ylabel("learning rate")
    style.blank(axes[len(stages) :])
    return figure


def _facts(stage: TrainingStage) -> Iterator[str]:
    yield f"iterations: {len(stage.rates):,}, {style.count(stage.images_per_batch, 'image')} each"
    pseudo = f", {stage.pseudo:,} of them pseudo-labelled" if stage.pseudo else ""
    yield f"{style.count(stage.images, 'image')}{pseudo}"
    yield f"from {stage.start}" if stage.start.startswith("weights of") else stage.start
    if stage.repeats > 1:
        yield f"one of {stage.repeats} folds"
    if stage.score is not None:
        yield f"score before tuning {stage.score:.3f}"
