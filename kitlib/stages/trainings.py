"""The trainings of 03 and 05: one for each validation fold, in one or several phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kitlib import records, train
from kitlib.data import cleaning, folds
from kitlib.records import Frame
from kitlib.runtime.progress import Row
from kitlib.stages.parameters import Retraining, Training
from kitlib.train import Result, events
from kitlib.train.config import TrainConfig, in_phases

_PHASE = "phase_"


@dataclass(frozen=True)
class Trained:
    """What the training of a fold left.

    Attributes:
        phases: the result of each phase, in order; one where there are no phases.
        ensemble: of how many of the last phases the weights predict together.
    """

    phases: tuple[Result, ...]
    ensemble: int = 1

    @property
    def weights(self) -> tuple[Path, ...]:
        """The weights that predict together, those of the last phase first."""
        return tuple(result.best for result in self.phases[-self.ensemble :][::-1])

    @property
    def metrics(self) -> tuple[Path, ...]:
        """Of each phase, rows of everything measured."""
        return tuple(result.metrics for result in self.phases)

    def and_then(self, result: Result) -> Trained:
        """With the result of a further training, which began from the last weights."""
        return replace(self, phases=(*self.phases, result))


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


def rates(config: TrainConfig, given: Training | Retraining) -> list[float]:
    """The learning rate of every iteration through all phases, for a plot."""
    return [
        rate
        for phase in in_phases(config, given.phases)
        for rate in train.schedule.curve(phase.schedule, phase.max_iter)
    ]


def run(
    jobs: Mapping[str, TrainConfig],
    given: Training | Retraining,
    on_row: Callable[[Row], None] | None = None,
) -> dict[str, Trained]:
    """Train through all phases, each of which begins with the best weights of the one before it.

    A phase is a training of its own, in the folder "phase_0" and so on of its fold: one that is finished is
    not done again, and one that was interrupted goes on.

    Args:
        jobs: the training of each fold by its name.
        given: the parameters.
        on_row: is called with each row of the first fold's metrics; iterations count through all phases.

    Returns:
        What each training left, by fold.

    Raises:
        KitError: as ``kitlib.train.run_all``.
    """
    found = {name: Trained((), given.ensemble_phases) for name in jobs}
    begun = 0
    for number in range(max(len(given.phases), 1)):
        configs = [in_phases(job, given.phases)[number] for job in jobs.values()]
        if given.phases:
            print(f"phase {number}: {configs[0].max_iter:,} iterations")
            pairs = zip(configs, found.values(), strict=True)
            configs = [_placed(config, number, earlier) for config, earlier in pairs]
        reports = _continued(on_row, begun) if on_row else None
        done = train.run_all(configs, given.gpus, at_once=given.folds_at_once, on_row=reports)
        found = {name: found[name].and_then(result) for name, result in zip(jobs, done, strict=True)}
        begun += configs[0].max_iter
    return found


def _placed(config: TrainConfig, number: int, earlier: Trained) -> TrainConfig:
    """A phase in its folder, with the weights that it begins with."""
    start = str(earlier.weights[0]) if earlier.phases else config.weights
    return replace(config, out=str(Path(config.out) / f"{_PHASE}{number}"), weights=start)


def _continued(on_row: Callable[[Row], None], begun: int) -> Callable[[Row], None]:
    """``on_row`` for rows of a phase before which there were ``begun`` iterations."""

    def report(row: Row) -> None:
        on_row({**row, "iteration": row["iteration"] + begun} if "iteration" in row else row)

    return report


def weights(results: Mapping[str, Trained], folder: Path) -> list[str]:
    """The files of weights that predict together, by their paths in a stage's folder.

    Those of each fold's last phase come first: where time is short, the first ones predict alone.

    Args:
        results: by fold.
        folder: of the stage.
    """
    by_phase = zip(*(trained.weights for trained in results.values()), strict=True)
    return [str(path.relative_to(folder)) for of_phase in by_phase for path in of_phase]


def curves(fold: Path) -> pd.DataFrame:
    """The learning curves of a fold through all of its phases, one row an iteration; empty without any."""
    of_phases = sorted(
        fold.glob(f"{_PHASE}*/{events.CURVES}"), key=lambda path: int(path.parent.name.removeprefix(_PHASE))
    )
    found = [path for path in (*of_phases, fold / events.CURVES) if path.is_file()]
    return events.joined([pd.read_csv(path) for path in found])
