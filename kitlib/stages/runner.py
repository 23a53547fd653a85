"""Running the notebooks one after the other with papermill, skipping what is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.errors import KitError
from kitlib.stages import notebooks, record
from kitlib.stages.names import NEEDS, STAGES, notebook
from kitlib.stages.profiles import Plan
from kitlib.stages.summary import Row, row


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
        KitError: a stage failed; what the stages before it wrote is kept.
    """
    if STAGES.index(first) > STAGES.index(last):
        raise KitError(f"--from {first} comes after --to {last}; exchange them")
    chosen = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    _check_earlier(plan, out, chosen)
    rows, upstream = [], record.data_fingerprint(data, out)
    for stage in STAGES[: STAGES.index(last) + 1]:
        path, folder, parameters = notebook(stage, plan.notebooks), out / stage, plan.parameters[stage]
        key, training = _keys(path, parameters, upstream)
        upstream = upstream if stage == STAGES[0] else key  # nothing depends on what 01 finds
        if stage not in chosen:
            continue
        former = record.read(folder)
        same, trained = (former.key == key, former.training == training) if former else (False, False)
        if same and former.done and record.has_results(folder) and not force:
            say(f"{stage}: finished before with the same inputs, skipped (--force runs it again)")
            rows.append(row(folder, former.seconds, skipped=True))
            continue
        if force or not trained:
            shelf = record.set_aside(folder)
            if shelf:
                say(f"{stage}: other parameters, data or --force; former results moved to {shelf}")
        elif same:
            say(f"{stage}: was interrupted, goes on")
        else:
            shelf = record.set_aside(folder, keep="fold_*")
            say(f"{stage}: the training stays; what was made of it moved to {shelf}")
        begun = record.Record(key, False, 0.0, parameters, training)
        rows.append(_run_stage(path, begun, folder, say))
    return rows


def _check_earlier(plan: Plan, out: Path, chosen: Sequence[str]) -> None:
    """See that what the chosen stages read of earlier ones is there."""
    for stage in chosen:
        from_others = stage == "03_train" and plan.parameters[stage].get("weights")
        for earlier in () if from_others else NEEDS.get(stage, ()):
            if earlier not in chosen and not record.has_results(out / earlier):
                raise KitError(
                    f"{stage} needs the results of {earlier}, but {out / earlier} has none; start earlier"
                )


def _after(parameters: dict[str, Any]) -> set[str]:
    """The parameters that come after a stage's training: they predict, tune and judge."""
    if "ways" not in parameters:
        return set()
    after = {"score_kinds", "ways", "margin", "confidence", "use_retrained"}
    # An evaluation within training predicts as well, and chooses the weights that are kept.
    return after if parameters.get("eval_every") else after | {"predict_config"}


def _keys(path: Path, parameters: dict[str, Any], upstream: str) -> tuple[str, str]:
    """Fingerprints of all that a stage does, and of its training alone."""
    ignored = {"data", "out", "gpus"}  # where and on what it runs does not change what it computes
    counted = sorted(item for item in parameters.items() if item[0] not in ignored)
    after = _after(parameters)
    before = [item for item in counted if item[0] not in after]
    training = files.fingerprint(notebooks.fingerprint(path), repr(before), upstream)
    return files.fingerprint(training, repr(counted)), training


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
        KitError: a cell failed or the kernel died.
    """
    import sys

    import papermill
    from nbclient.exceptions import DeadKernelError

    stage, executed = path.stem, folder / path.name
    try:
        papermill.execute_notebook(
            path,
            executed,
            parameters,
            kernel_name="python3",
            cwd=path.parent,
            progress_bar=False,
            coalesce_streams=True,  # of a progress bar only its last state is kept
            extra_arguments=["--IPKernelApp.log_level=50"],  # its talk is not for the user
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
        )
    except papermill.PapermillExecutionError as error:
        raise _failure(stage, error.ename, error.evalue, executed) from None
    except DeadKernelError:
        advice = "its kernel died, most often for want of memory; use a smaller batch or crop and run again"
        raise KitError(f"{stage}: {advice}") from None
    except OSError as error:
        raise files.cannot_write(executed, error) from error


def _failure(stage: str, name: str, text: str, executed: Path) -> KitError:
    if name.endswith(("KitError", "RleError")):
        return KitError(f"{stage}: {text}")
    return KitError(f"{stage} failed: {name}: {text} (the executed notebook shows where: {executed})")
