"""A run as a bundle for Kaggle: its best weights, and the submission notebook with its parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle import image
from kitlib.runtime import lock
from kitlib.stages import notebooks, parameters, record, results
from kitlib.stages.notebooks import STAGES, named_file


def write(run: Path, user: str = "", half: bool = False) -> bundles.Bundle:
    """Bundle a run: ``run``/kaggle/dataset and ``run``/kaggle/kernel.

    The notebook gets the parameters that it was run with here, or its own where it was not.

    Args:
        user, half: as ``kitlib.kaggle.bundle.write`` takes them.

    Raises:
        KitError: the folder is no run or nothing was trained in it, another run or notebook writes there, as
            ``check_competition``, or as ``kitlib.kaggle.bundle.write``.
    """
    run, stage = run.expanduser().resolve(), STAGES[-1]
    check_competition(run)
    done = record.read(run / stage)
    values: dict[str, Any] = {
        **notebooks.parameters(notebooks.notebook(stage)),
        **(done.parameters if done else {}),
    }
    parameters.read(stage, values)
    if not record.has_results(run / "03_train"):
        raise KitError(f"{run} holds no trained weights; run ./run_all.sh --out {run} first")
    best = results.best(run)
    if values["weights"]:
        best = replace(best, weights=tuple(map(named_file, values["weights"])))
    if values["post_processing"]:
        best = replace(best, post=named_file(values["post_processing"]))
    for path in (*best.weights, best.post):
        if not path.is_file():
            remedy = f"run {best.stage} again, or name another in {stage}'s weights and post_processing"
            raise KitError(f"{path} does not exist; {remedy}")
    hours = values["hours"] or image.HOURS
    values |= {"data": "", "out": "", "gpus": -1, "weights": [], "post_processing": "", "hours": hours}
    # A run would exchange the weights meanwhile, a second bundle remove the temporary files of this one.
    with lock.hold(run, "kit bundle"):
        return bundles.write(run, best, notebooks.notebook(stage), values, user or bundles.NOBODY, half)


def check_competition(run: Path) -> None:
    """Refuse a run on images of the user's own, of which nothing can be submitted.

    Raises:
        KitError: it was trained on them.
    """
    if results.is_own(run):
        raise KitError(
            f"{run} was trained on images of your own, and Kaggle's test images are the competition's; "
            f"kit predict {run} IMAGES --out DIR finds the cells of new images"
        )
