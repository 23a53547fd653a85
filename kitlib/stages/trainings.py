"""The trainings of 03_train, one for each validation fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kitlib import records
from kitlib.data import cleaning, folds
from kitlib.records import Frame
from kitlib.stages.parameters import Training
from kitlib.train.config import TrainConfig


def by_fold(frames: Sequence[Frame], given: Training, config: TrainConfig) -> dict[str, TrainConfig]:
    """The training of each validation fold that is asked for, by the name of its folder: "fold_0".

    The frames that train and those that validate are written there; how many they are is printed.

    Args:
        frames: all labelled images.
        given: the parameters, which say how the images are split and cleaned.
        config: what the trainings have in common; their folders lie in its ``out``.
    """
    jobs = {}
    for number in range(given.folds) if given.fold < 0 else [given.fold]:
        training, held_out = folds.split(frames, number, given.folds, given.seed)
        training = cleaning.clean(training, given.cleaning)
        print(f"fold {number}: {len(training)} images train, {len(held_out)} validate")
        folder = Path(config.out) / f"fold_{number}"
        jobs[folder.name] = replace(
            config,
            out=str(folder),
            train=str(records.write_frames(folder / "train.npz", training)),
            val=str(records.write_frames(folder / "val.npz", held_out)),
        )
    return jobs
