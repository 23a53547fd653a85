"""Running the notebooks one after the other with papermill, skipping what is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kitlib import files
from kitlib.config import affecting
from kitlib.errors import KitError
from kitlib.runtime import lock
from kitlib.stages import machine, notebooks, record
from kitlib.stages.names import NEEDS, STAGES, notebook
from kitlib.stages.profiles import Plan
from kitlib.stages.summary import Row, row
from kitlib.train.config import TrainConfig

#: Parameters that say where and on what a stage runs.
PLACE = {"data", "out", "gpus"}


def run(
    plan: Plan,
    data: Path,
    out: Path,
    first: str = STAGES[0],
    last: str = STAGES[-1],
    force: bool = False,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Run the stages from ``first`` to ``last`` and leave their results in ``out``/<stage>.

    A stage that was finished with the same notebook, parameters, data and earlier stages is skipped; one that
    was interrupted goes on from where it was, and one of which only predicting, tuning or judging changes
    keeps its training. Other results are moved aside, never overwritten.

    Args:
        force: run every chosen stage anew.

    Returns:
        A row for each stage: its time, score and artefacts.

    Raises:
        KitError: this machine cannot do what is asked of it, or another run writes into ``out``; nothing was
            done. Or a stage failed; what the stages before it wrote is kept.
    """
    if STAGES.index(first) > STAGES.index(last):
        raise KitError(f"--from {first} comes after --to {last}; exchange them")
    chosen = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    _check_earlier(plan, out, chosen)
    steps = [step for step in _steps(plan, data, out, STAGES.index(last) + 1, force) if step.stage in chosen]
    machine.check(plan, [step.stage for step in steps if not step.is_finished])
    with lock.hold(out, f"--profile {plan.profile} --from {first} --to {last}"):
        return [_take(step, say) for step in steps]


@dataclass(frozen=True)
class _Step:
    """A stage of a run, and how its folder stands to it.

    Attributes:
        begun: what the stage is recorded with when it begins.
        former: the record of the results in its folder.
        force: whether it runs also where it is finished.
    """

    notebook: Path
    folder: Path
    begun: record.Record
    former: record.Record | None
    force: bool

    @property
    def stage(self) -> str:
        return self.folder.name

    @property
    def is_same(self) -> bool:
        """Whether the results in the folder were made with the same inputs."""
        return self.former is not None and self.former.key == self.begun.key

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        done = self.is_same and self.former.done and record.has_results(self.folder)
        return done and not self.force

    @property
    def keeps_training(self) -> bool:
        """Whether the training in the folder is of the same inputs, or was interrupted and may go on."""
        former, begun = self.former, self.begun
        if former is None or self.force:
            return False
        may_go_on = not former.done and former.resumable == begun.resumable
        return former.training == begun.training or may_go_on


def _steps(plan: Plan, data: Path, out: Path, count: int, force: bool) -> Iterator[_Step]:
    """The first ``count`` stages."""
    upstream = record.data_fingerprint(data, out)
    for stage in STAGES[:count]:
        path, folder, parameters = notebook(stage, plan.notebooks), out / stage, plan.parameters[stage]
        keys = _keys(path, parameters, upstream)
        upstream = upstream if stage == STAGES[0] else keys.everything  # nothing depends on what 01 finds
        begun = record.Record(keys.everything, False, 0.0, parameters, keys.training, keys.resumable)
        yield _Step(path, folder, begun, None if force else record.read(folder), force)


def _take(step: _Step, say: Callable[[str], None]) -> Row:
    """Run a stage or skip it; what it cannot go on with is moved aside first."""
    if step.is_finished:
        say(f"{step.stage}: finished before with the same inputs, skipped (--force runs it again)")
        return row(step.folder, step.former.seconds, skipped=True)
    if not step.keeps_training:
        moved_to = record.set_aside(step.folder)
        if moved_to:
            say(f"{step.stage}: other parameters, data or --force; former results moved to {moved_to}")
    elif step.is_same:
        say(f"{step.stage}: was interrupted, goes on")
    else:
        moved_to = record.set_aside(step.folder, keep="fold_*")
        say(f"{step.stage}: the training stays; what was made of it moved to {moved_to}")
    return _run_stage(step.notebook, step.begun, step.folder, say)


def _check_earlier(plan: Plan, out: Path, chosen: Sequence[str]) -> None:
    """See that what the chosen stages read of earlier ones is there."""
    for stage in chosen:
        from_others = stage == "03_train" and plan.parameters[stage].get("weights")
        for earlier in () if from_others else NEEDS.get(stage, ()):
            if earlier not in chosen and not record.has_results(out / earlier):
                raise KitError(
                    f"{stage} needs the results of {earlier}, but {out / earlier} has none; start earlier"
                )


class _Keys(NamedTuple):
    """Fingerprints of what a stage's results come from: the notebook, the stages before it, and parameters.

    Attributes:
        everything: all parameters but those that say where, on what and how fast it runs.
        training: of these, those that the training depends on, so that it may stay where others change.
        resumable: of these, those that an interrupted training has to have in common with its further part.
    """

    everything: str
    training: str
    resumable: str


def _keys(path: Path, parameters: dict[str, Any], upstream: str) -> _Keys:
    base = files.fingerprint(notebooks.fingerprint(path), upstream)
    counted = parameters.keys() - PLACE - affecting(TrainConfig, "speed")
    training = counted - _after(parameters)
    resumable = training - affecting(TrainConfig, "watching")
    names = (counted, training, resumable)
    return _Keys(
        *(files.fingerprint(base, repr([(n, parameters[n]) for n in sorted(part)])) for part in names)
    )


def _after(parameters: dict[str, Any]) -> set[str]:
    """The parameters that come after a stage's training: they predict, tune and judge."""
    if "ways" not in parameters:
        return set()
    after = {"score_kinds", "ways", "margin", "confidence", "use_retrained"}
    # An evaluation within training predicts as well, and chooses the weights that are kept.
    return after if parameters.get("eval_every") else after | {"predict_config"}


def _run_stage(path: Path, begun: record.Record, folder: Path, say: Callable[[str], None]) -> Row:
    files.make_folder(folder)
    say(f"{path.stem}: running")
    begun.save(folder)
    start = time.monotonic()
    execute(path, begun.parameters, folder)
    seconds = time.monotonic() - start
    summary = row(folder, seconds)
    begun.finished(seconds).save(folder)
    return summary


def execute(path: Path, parameters: dict[str, Any], folder: Path) -> None:
    """Run one notebook with papermill, where it lies; the executed copy lies in the stage's folder.

    Raises:
        KitError: a cell failed, or the kernel died or could not be started.
    """
    import sys

    import papermill

    from kitlib.stages.kernel import NAME, START_SECONDS, Kernel

    stage, executed, kernel = path.stem, folder / path.name, Kernel()
    try:
        with kernel.explained():
            papermill.execute_notebook(
                _escaped(path),
                _escaped(executed),
                parameters,
                kernel_name=NAME,
                kernel_manager_class=kernel.manager(),
                start_timeout=START_SECONDS,
                cwd=path.parent,
                progress_bar=False,
                coalesce_streams=True,  # of a progress bar only its last state is kept
                extra_arguments=["--IPKernelApp.log_level=50"],  # its talk is not for the user
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
    except papermill.PapermillExecutionError as error:
        raise _failure(stage, error.ename, error.evalue, executed) from None
    except KitError as error:
        raise KitError(f"{stage}: {error}") from error
    except OSError as error:
        raise files.cannot_write(executed, error) from error


def _escaped(path: Path) -> str:
    """A path as papermill takes it: as a format string."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failure(stage: str, name: str, text: str, executed: Path) -> KitError:
    if name.endswith(("KitError", "RleError")):
        return KitError(f"{stage}: {text}")
    return KitError(f"{stage} failed: {name}: {text} (the executed notebook shows where: {executed})")
