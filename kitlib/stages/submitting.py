"""A run's way to Kaggle: its best weights and the notebook that submits, as one bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle import image
from kitlib.stages import notebooks, record
from kitlib.stages.names import NOTEBOOKS, STAGES, notebook
from kitlib.stages.stage import Stage


def bundle(run: Path, user: str = "", half: bool = False) -> bundles.Bundle:
    """Bundle a run: ``run``/kaggle/dataset and ``run``/kaggle/kernel.

    The notebook gets the parameters that it was run with here, or its own where it was not.

    Args:
        user, half: as ``kitlib.kaggle.bundle.write`` takes them.

    Raises:
        KitError: the folder is no run or nothing was trained in it, or as ``kitlib.kaggle.bundle.write``.
    """
    run, stage = run.expanduser().resolve(), STAGES[-1]
    done = record.read(run / stage)
    values = {**notebooks.parameters(notebook(stage)), **(done.parameters if done else {})}
    best = Stage(stage, run, run).best() if record.has_results(run / "03_train") else None
    if best is None:
        raise KitError(f"{run} holds no trained weights; run ./run_all.sh --out {run} first")
    if values["weights"]:
        best = replace(best, weights=tuple(map(_named, values["weights"])))
    if values["limits"]:
        best = replace(best, post=_named(values["limits"]))
    for path in (*best.weights, best.post):
        if not path.is_file():
            mend = f"run {best.stage} again, or name another in {stage}'s weights and limits"
            raise KitError(f"{path} does not exist; {mend}")
    hours = values["hours"] or image.HOURS
    here: dict[str, Any] = {"data": "", "out": "", "gpus": -1, "weights": [], "limits": "", "hours": hours}
    return bundles.write(run, best, notebook(stage), {**values, **here}, user or bundles.NOBODY, half)


def _named(path: str) -> Path:
    """A file that a parameter names, from where the notebook ran."""
    return NOTEBOOKS / Path(path).expanduser()
