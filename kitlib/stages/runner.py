"""Running the notebooks one after the other with papermill, skipping what is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from kitlib import config, files
from kitlib.errors import KitError
from kitlib.runtime import cluster, engine, gpus, lock, machine
from kitlib.runtime.progress import for_bars
from kitlib.stages import data_files, notebooks, parameters, record
from kitlib.stages.notebooks import NEEDS, STAGES, notebook
from kitlib.stages.profiles import Plan
from kitlib.stages.record import Row, row
from kitlib.stages.report import notebook as executed_notebook
from kitlib.stages.report import spared, summary


def run(
    plan: Plan,
    data: Path,
    out: Path,
    first: str = STAGES[0],
    last: str = STAGES[-1],
    force: bool = False,
    say: Callable[[str], None] = print,
    after: Callable[[Path], object] = lambda folder: None,
) -> list[Row]:
    """Run the stages from ``first`` to ``last`` and leave their results in ``out``/<stage>.

    A stage that was finished with the same notebook, parameters, data and earlier stages is skipped; one that
    was interrupted goes on from where it was, and one of which only predicting, tuning or judging changes
    keeps its training. Other results are moved aside, never overwritten.

    Args:
        force: run every chosen stage anew.
        say: is given what happens, sentence by sentence.
        after: is called with a stage's folder once the stage has run.

    Returns:
        A row for each stage: its time, score and artefacts.

    Raises:
        KitError: this machine cannot do what is asked of it, or another run writes into ``out``; nothing was
            done. Or a stage failed; what the stages before it wrote stays.
    """
    chosen = chosen_stages(first, last)
    check_earlier(plan, out, chosen)
    found = data_files.read(data, out)
    first_stages = _steps(plan, found.fingerprint, out, STAGES.index(last) + 1, force)
    steps = [step for step in first_stages if step.stage in chosen]
    check_machine(plan, [step.stage for step in steps if not step.is_finished])
    with lock.hold(out, f"--profile {plan.profile} --from {first} --to {last}"):
        files.remove_unfinished(out)
        found.remember(out)
        return [_take(step, say, after) for step in steps]


def chosen_stages(first: str, last: str) -> tuple[str, ...]:
    """The stages from ``first`` to ``last``.

    Raises:
        KitError: they come in the other order.
    """
    if STAGES.index(first) > STAGES.index(last):
        raise KitError(f"--from {first} comes after --to {last}; exchange them")
    return STAGES[STAGES.index(first) : STAGES.index(last) + 1]


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
        done = self.former is not None and self.former.done and self.is_same
        return done and not self.force and record.has_results(self.folder)

    @property
    def keeps_training(self) -> bool:
        """Whether the training in the folder is of the same inputs, or was interrupted and may go on."""
        former, begun = self.former, self.begun
        if former is None or self.force:
            return False
        may_go_on = not former.done and former.resumable == begun.resumable
        return former.training == begun.training or may_go_on


def _steps(plan: Plan, data: str, out: Path, count: int, force: bool) -> Iterator[_Step]:
    """The first ``count`` stages, on the data of this fingerprint."""
    upstream = data
    for stage in STAGES[:count]:
        path, folder, values = notebook(stage, plan.notebooks), out / stage, plan.parameters[stage]
        base = files.fingerprint(notebooks.fingerprint(path), upstream)
        everything, later, training, resumable = (
            files.fingerprint(base, repr([(name, values[name]) for name in sorted(names)]))
            for names in counted(stage, values)
        )
        upstream = upstream if stage == STAGES[0] else later  # nothing depends on what 01 finds
        begun = record.Record(everything, False, 0.0, values, training, resumable, plan.profile)
        yield _Step(path, folder, begun, None if force else record.read(folder), force)


class Counted(NamedTuple):
    """The parameters that results depend on.

    Attributes:
        everything: all but those that say where, on what and how fast a stage runs.
        later: of these, those that the results depend on which later stages read.
        training: of these, those that the training depends on, so that it may stay where others change.
        resumable: of these, those that an interrupted training has to have in common with its further part.
    """

    everything: set[str]
    later: set[str]
    training: set[str]
    resumable: set[str]


def counted(stage: str, values: Mapping[str, Any]) -> Counted:
    """Which parameters the results of a stage depend on; which do follows from ``Affects`` alone."""
    found = parameters.read(stage, values)
    everything = set(values) - config.affecting(found, "place", "speed")
    later = everything - config.affecting(found, "report")
    training = later - config.affecting(found, "after")
    # With "always", as evaluations may be new to an interrupted training: predict_config then counts before.
    after = config.affecting(found, "after", always=True)
    resumable = later - after - config.affecting(found, "evaluation", "length")
    return Counted(everything, later, training, resumable)


def _take(step: _Step, say: Callable[[str], None], after: Callable[[Path], object]) -> Row:
    """Run a stage or skip it; what it cannot go on with is moved aside first."""
    if step.former is not None and step.is_finished:
        say(f"{step.stage}: finished before with the same inputs, skipped (--force runs it again)")
        return row(step.folder, step.former.seconds, skipped=True)
    if not step.keeps_training:
        moved_to = record.set_aside(step.folder)
        if moved_to:
            say(f"{step.stage}: other parameters, data or --force; former results moved to {moved_to}")
    elif step.is_same:
        say(f"{step.stage}: was interrupted, goes on")
    else:
        moved_to = record.set_aside(step.folder, stays="fold_*")
        say(f"{step.stage}: the training stays; what was made of it moved to {moved_to}")
    say(f"{step.stage}: running")
    done = run_stage(step.notebook, step.begun, step.folder)
    with spared("the report", say):
        summary.write(step.folder.parent)
    with spared("its record for tracking", say):
        after(step.folder)
    return done


def check_earlier(plan: Plan, out: Path, chosen: Sequence[str]) -> None:
    """See that what the chosen stages read of earlier ones is there.

    Raises:
        KitError: it is not.
    """
    for stage in chosen:
        from_others = stage == "03_train" and plan.parameters[stage].get("weights")
        for earlier in () if from_others else NEEDS.get(stage, ()):
            if earlier not in chosen and not record.has_results(out / earlier):
                raise KitError(
                    f"{stage} needs the results of {earlier}, but {out / earlier} has none; start earlier"
                )


def check_machine(plan: Plan, stages: Sequence[str], found: gpus.Survey | None = None) -> None:
    """See that the GPUs which the given stages ask for are there and can compute as they are asked to.

    Args:
        plan: the parameters.
        stages: which of them run.
        found: GPUs of another machine; None: those of this one.

    Raises:
        KitError: too few GPUs, a driver or a build of PyTorch that cannot use them, no bfloat16, a batch that
            they cannot share evenly, or none at all for a profile that is made for GPUs. Or a limit of time
            on a cluster.
    """
    if cluster.is_chosen() and "06_submit" in stages and plan.parameters["06_submit"]["hours"]:
        raise KitError("06.hours is kept on one machine alone; set it to 0, or leave out --engine ray")
    computing = [stage for stage in stages if "gpus" in plan.parameters[stage]]
    for stage in computing:
        values = plan.parameters[stage]
        count = gpus.gpu_count(values["gpus"], _precisions(plan, stage), found)
        if count == 0 and values["gpus"] < 0 and plan.device == "gpu":
            raise KitError(_needs_gpus(plan, computing))
        if values["gpus"] > 0 and "images_per_batch" in values:
            try:
                for share in _gpus_of_trainings(plan, stage):
                    parameters.read(stage, values).images_per_process(share)
            except KitError as error:
                raise KitError(f"{stage}: {error}") from None


def _gpus_of_trainings(plan: Plan, stage: str) -> set[int]:
    """How many GPUs each of a stage's trainings has, where their number is given."""
    values = plan.parameters[stage]
    at_once = engine.possible_at_once(
        values.get("folds_at_once", 1), _trained_folds(plan, stage), values["gpus"]
    )
    # The trainings of a learning curve have all GPUs, one after the other.
    return {values["gpus"] // at_once} | ({values["gpus"]} if values.get("learning_curve") else set())


def _precisions(plan: Plan, stage: str) -> dict[str, str]:
    """The mixed precision by the parameter that sets it; later stages predict as 03_train does."""
    values = plan.parameters[stage]
    found = {f"{stage}.amp": values["amp"]} if "amp" in values else {}
    if "predict_config" in values:
        owner = stage if "amp" in values["predict_config"] else "03_train"
        predict = plan.parameters[owner].get("predict_config", {})
        found[f"{owner}.predict_config.amp"] = predict.get("amp", "off")
    return found


def _needs_gpus(plan: Plan, stages: Sequence[str]) -> str:
    images = sum(_images(plan, stage) for stage in stages)
    return (
        f"the profile '{plan.profile}' is made for GPUs, and this machine has none that PyTorch can use "
        f"({gpus.explain(gpus.survey())}); give --gpus 0 to run it on the CPU all the same, which takes "
        f"seconds for each of the {images:,} images that it trains on, or choose --profile cpu"
    )


def _images(plan: Plan, stage: str) -> int:
    """How many images a stage's trainings go through, a repeated image counted each time."""
    values = plan.parameters[stage]
    trainings = _trained_folds(plan, stage) + len(values.get("learning_curve", ()))
    iterations = parameters.iterations(parameters.read(stage, values))
    return trainings * iterations * values.get("images_per_batch", 0)


def _trained_folds(plan: Plan, stage: str) -> int:
    """Of how many folds a stage trains a model; 05_retrain retrains those of 03_train."""
    first = plan.parameters["03_train"]
    each_fold = plan.parameters[stage].get("fold", 0) < 0 and first["fold"] < 0
    return first["folds"] if each_fold else 1


def run_stage(path: Path, begun: record.Record, folder: Path) -> Row:
    """Run one notebook, and record it in its folder when it begins and when it is finished.

    Raises:
        KitError: as ``execute``.
    """
    files.make_folder(folder)
    begun = replace(begun, machine=machine.describe())
    begun.save(folder)
    start = time.monotonic()
    execute(path, begun.parameters, folder)
    seconds = time.monotonic() - start
    summary = row(folder, seconds)
    begun.finished(seconds).save(folder)
    return summary


def execute(path: Path, parameters: dict[str, Any], folder: Path) -> None:
    """Run one notebook with papermill, where it lies; its executed copy, also as HTML, lies in the folder.

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
                coalesce_streams=True,  # of a progress bar only the last state stays
                extra_arguments=["--IPKernelApp.log_level=50"],  # its talk is not for the user
                stdout_file=for_bars(sys.stdout),
                stderr_file=for_bars(sys.stderr),
            )
    except papermill.PapermillExecutionError as error:
        raise _failure(stage, error.ename, error.evalue, executed) from None
    except KitError as error:
        raise KitError(f"{stage}: {error}") from error
    except OSError as error:
        raise files.cannot_write(executed, error) from error
    finally:
        if executed.is_file():
            with spared(f"{stage}.html"):
                executed_notebook.write_html(executed)


def _escaped(path: Path) -> str:
    """A path as papermill takes it: as a format string."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failure(stage: str, name: str, text: str, executed: Path) -> KitError:
    if name.endswith(("KitError", "RleError")):
        return KitError(f"{stage}: {text}")
    return KitError(f"{stage} failed: {name}: {text} (the executed notebook shows where: {executed})")
