"""A search: trials one after the other here, side by side on a cluster, kept in Optuna's storage.

A trial trains and validates as 03_train does with the same settings, in a folder that is named by them: one
that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitlib import files
from kitlib.data.dataset import Dataset
from kitlib.errors import KitError
from kitlib.records import Frame
from kitlib.runtime import cluster, lock
from kitlib.runtime.progress import Row
from kitlib.stages import parameters, profiles, runner, trainings, validation
from kitlib.stages.report import search as report
from kitlib.stages.search.space import Dimension
from kitlib.stages.stage import Stage

if TYPE_CHECKING:
    import optuna

_STAGE, _BEFORE = "03_train", "02_pretrain_livecell"
_STUDY, _BASE = "kitlib", "base"


@dataclass(frozen=True)
class Base:
    """What all trials have in common.

    Attributes:
        profile: as ``--profile`` has it.
        settings: as ``--set`` has them.
        common: values for every notebook that has such a parameter.
        data: the folder of the data.
        out: the folder of the search.
        own_data: whether the data are not the competition's.
    """

    profile: str
    settings: tuple[str, ...]
    common: dict[str, Any]
    data: Path
    out: Path
    own_data: bool

    def plan(self, settings: Sequence[str] = ()) -> profiles.Plan:
        """The parameters with further settings.

        Raises:
            KitError: as ``profiles.plan``.
        """
        made = profiles.plan(self.profile, [*self.settings, *settings], self.common, own_data=self.own_data)
        return made.in_folders(self.data, self.out)

    def command(self, settings: Sequence[str]) -> str:
        """The call of ``kit run`` that trains and validates as the trial with these settings did."""
        first = "03" if any(text.startswith(f"{_STAGE}.weights=") for text in settings) else "01"
        words = ["kit", "run", "--profile", self.profile, "--data", str(self.data)]
        words += ["--out", str(self.out / "best"), "--from", first, "--to", "03"]
        words += [word for text in (*self.settings, *settings) for word in ("--set", text)]
        words += [
            word
            for name, value in self.common.items()
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        return shlex.join(words)


def search(
    base: Base,
    space: Sequence[Dimension],
    trials: int,
    storage: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Search for the parameters with the best validation score, and write a page on it.

    Args:
        base: what all trials have in common.
        space: what is varied.
        trials: how many there shall be in all, those of an earlier call with the same storage counted.
        storage: an address as Optuna takes it; "": a file of SQLite in ``base.out``.
        say: is given what happens, sentence by sentence.

    Returns:
        The page.

    Raises:
        KitError: Optuna is not installed; a value that may be tried is refused; the storage holds a search of
            something else; or not one trial came to its end.
    """
    if find_spec("optuna") is None:
        raise KitError(
            f"kit search needs a package that is not installed; run: {sys.executable} -m pip install optuna"
        )
    for dimension in space:
        for setting in dimension.extremes:
            base.plan([setting])
    start = _start(base, say)
    with lock.hold(base.out, f"search of {', '.join(dimension.name for dimension in space)}"):
        started = _Search(base, tuple(space), _open(base, space, storage), trials, start, say)
        started.run()
        return started.write()


def _start(base: Base, say: Callable[[str], None]) -> tuple[str, ...]:
    """The settings by which every trial starts from the same weights; 02 runs first where it makes them."""
    plan, stage = base.plan(), Stage(_STAGE, base.data, base.out)
    runner.check_machine(plan, [_STAGE])
    if plan.parameters[_STAGE]["weights"]:
        return ()
    # Skipped where it is finished with these parameters.
    runner.run(plan, base.data, base.out, _BEFORE, _BEFORE, say=say)
    weights = stage.start(_BEFORE)
    return (f"{_STAGE}.weights={weights}",) if weights else ()


def _open(base: Base, space: Sequence[Dimension], storage: str) -> optuna.Study:
    """The study in a storage, new or as an earlier call left it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = storage or f"sqlite:///{base.out / 'search.db'}"
    # Without the password that it may hold.
    where = address.rpartition("@")[2]
    try:
        study = optuna.create_study(
            storage=address, study_name=_STUDY, direction="maximize", load_if_exists=True
        )
    # The storage is a matter of SQLAlchemy's, whose errors have no common type with Optuna's.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(
            f"Optuna cannot use the storage {where} ({reason[:80]}); give another --storage"
        ) from None
    own = base.plan().parameters[_STAGE]
    same = files.fingerprint(repr(sorted(own.items())), str(base.data), *map(repr, space))
    if study.user_attrs.get(_BASE, same) != same:
        raise KitError(
            f"{where} holds a search with other parameters, data or ranges; repeat the call that "
            "began it, or give another --out"
        )
    study.set_user_attr(_BASE, same)
    # Chooses anew where an earlier call ended: with the first seed it would repeat its first choices.
    study.sampler = optuna.samplers.TPESampler(seed=own["seed"] + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


@dataclass
class _Search:
    """A search that runs.

    Attributes:
        base: what all trials have in common.
        space: what is varied.
        study: Optuna's.
        wanted: how many trials there shall be.
        start: the settings of what a trial starts from.
        say: is given what happens.
        failure: why a trial failed, the last that did.
    """

    base: Base
    space: tuple[Dimension, ...]
    study: optuna.Study
    wanted: int
    start: tuple[str, ...]
    say: Callable[[str], None]
    failure: KitError | None = None
    _choosing: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def stage(self) -> Stage:
        """The stage in whose place the trials run."""
        return Stage(_STAGE, self.base.data, self.base.out)

    @cached_property
    def dataset(self) -> Dataset:
        """The data, as 03_train reads them."""
        return self.stage.dataset(self._given(()).reading)

    @cached_property
    def frames(self) -> list[Frame]:
        """The labelled images, as 03_train has them."""
        return self.stage.corrected(self.dataset.labelled, self._given(()).corrections)

    def run(self) -> None:
        """Run trials until there are as many as wanted."""
        if not self._given(()).eval_every:
            self.say("no trial ends early, as 03_train.eval_every is 0; with it, bad ones would be stopped")
        # Read here once: the threads share it.
        self.say(f"{len(self.frames)} labelled images")
        at_once = min(cluster.size(), self.wanted) if cluster.is_chosen() else 1
        if at_once == 1:
            self._take_trials()
            return
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for done in as_completed([pool.submit(self._take_trials) for _ in range(at_once)]):
                    done.result()
            except BaseException:
                cluster.stop()
                raise

    def write(self) -> Path:
        """Write the page.

        Raises:
            KitError: no trial came to its end.
        """
        best = report.best(self.study)
        if best is None:
            raise self.failure or KitError(f"no trial came to its end; see {self.base.out}/trials")
        command = self.base.command([*self.start, *self._settings(best.params)])
        self.say(
            f"the best of {len(self.study.trials)} trials scores {best.value:.3f}; the same again:\n{command}"
        )
        return report.write(self.study, command, self.base.out)

    def _take_trials(self) -> None:
        while (trial := self._choose()) is not None:
            self._run_trial(trial)

    def _choose(self) -> optuna.Trial | None:
        """The next trial; None where there are enough."""
        import optuna

        states = optuna.trial.TrialState
        with self._choosing:
            taken = self.study.get_trials(
                deepcopy=False, states=(states.RUNNING, states.COMPLETE, states.PRUNED)
            )
            failed = self.study.get_trials(deepcopy=False, states=(states.FAIL,))
            if len(taken) + sum("error" in trial.user_attrs for trial in failed) >= self.wanted:
                return None
            return self.study.ask({dimension.name: dimension.distribution for dimension in self.space})

    def _run_trial(self, trial: optuna.Trial) -> None:
        import optuna

        settings = self._settings(trial.params)
        self.say(f"trial {trial.number + 1} of {self.wanted}: {', '.join(settings)}")
        try:
            score = self._score(trial, settings)
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            self.say(f"trial {trial.number + 1}: stopped, as half of the earlier ones were better by then")
        except KitError as error:
            self.failure = error
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self.say(f"trial {trial.number + 1}: failed: {error}")
        else:
            self.study.tell(trial, score)
            self.say(f"trial {trial.number + 1}: score {score:.4f}")

    def _score(self, trial: optuna.Trial, settings: Sequence[str]) -> float:
        """Train and validate as 03_train does.

        Raises:
            optuna.TrialPruned: by an evaluation on its way, it is worse than the median of the others.
            KitError: what stopped it.
        """
        given = self.stage.fit(self._given(settings), self.frames)
        own = Stage(_STAGE, self.base.data, self.base.out / "trials" / files.fingerprint(*settings)[:12])
        categories = self.dataset.categories
        config = own.training(
            given,
            categories,
            model=given.model(len(categories)),
            predict=given.predict_config,
            weights=given.weights,
        )
        jobs = trainings.by_fold(self.frames, given, config)
        results = trainings.run(jobs, given, on_row=_reports_to(trial))
        return validation.validate(
            {name: (trained.weights, Path(jobs[name].val)) for name, trained in results.items()},
            own.folder,
            config.predict,
            given.gpus,
            seed=given.seed,
            score_kinds=given.score_kinds,
            tuning_methods=given.tuning_methods,
        ).score.mean

    def _given(self, settings: Sequence[str]) -> parameters.Training:
        """The parameters of 03_train with these settings."""
        plan = self.base.plan([*self.start, *settings])
        return parameters.read(_STAGE, plan.parameters[_STAGE])

    def _settings(self, params: dict[str, Any]) -> list[str]:
        return [dimension.setting(params[dimension.name]) for dimension in self.space]


def _reports_to(trial: optuna.Trial) -> Callable[[Row], None]:
    """Hands the evaluations of a training to Optuna, and stops it where they are bad."""
    import optuna

    def report_row(row: Row) -> None:
        if "map" in row:
            trial.report(row["map"], row["iteration"])
            if trial.should_prune():
                raise optuna.TrialPruned

    return report_row
