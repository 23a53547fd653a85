"""The page of a search for parameters: the best trial, all of them, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kitlib.stages.report import page
from kitlib.stages.report.page import Card, Page, Section, Table

if TYPE_CHECKING:
    import optuna

#: The page, in the folder of the search.
NAME = "search.html"


def best(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The trial with the best score; None where none came to its end."""
    done = [trial for trial in study.get_trials(deepcopy=False) if _state(trial) == "complete"]
    return max(done, key=lambda trial: trial.value or 0.0, default=None)


def table(study: optuna.Study) -> pd.DataFrame:
    """A row a trial, by number from 1: its score, its state, and the parameters that it tried.

    The score of a trial that was stopped early is that of its last evaluation.
    """
    rows = [
        {"score": trial.value, "state": _state(trial), **trial.params}
        for trial in study.get_trials(deepcopy=False)
    ]
    return pd.DataFrame(rows, index=range(1, len(rows) + 1))


def write(study: optuna.Study, command: str, folder: Path) -> Path:
    """Write the page into a folder.

    Args:
        study: the search; at least one trial came to its end.
        command: the call that runs the best trial again.
        folder: where to.
    """
    # Imported here, as matplotlib takes a second.
    from kitlib.viz import search as figures

    trials, found = table(study), best(study)
    assert found is not None
    counts = trials["state"].value_counts()
    cards = [Card("best validation score", f"{found.value:.3f}", f"trial {found.number + 1}")]
    cards += [Card(label, str(counts.get(state, 0))) for state, label in _STATES.items()]
    ranges = {name: kind for trial in study.get_trials() for name, kind in trial.distributions.items()}
    logarithmic = [name for name, kind in ranges.items() if getattr(kind, "log", False)]
    sections = [
        Section("The best trial", ("Its training and validation, again as a run:", f"`{command}`")),
        Section(
            "Scores",
            (
                "The competition's metric, cross-validated as 03_train does. Of a trial that was stopped "
                "early, the score of its last evaluation, without tuned post-processing.",
            ),
            pictures=(
                page.drawn("the trials in their order", figures.search_history(trials)),
                page.drawn("the score over each parameter", figures.search_slices(trials, logarithmic)),
            ),
        ),
        Section("All trials, the best first", tables=(_rows(trials),)),
    ]
    whole = Page(f"Search in {folder.name}", ", ".join(ranges), tuple(cards), tuple(sections))
    return page.write(whole, folder / NAME)


_STATES = {"complete": "finished", "pruned": "stopped early", "fail": "failed"}


def _state(trial: optuna.trial.FrozenTrial) -> str:
    return trial.state.name.lower()


def _rows(trials: pd.DataFrame) -> Table:
    ordered = trials.sort_values("score", ascending=False, na_position="last")
    rows = [
        [str(number), "" if pd.isna(row["score"]) else f"{row['score']:.4f}", row["state"]]
        + [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.iloc[2:]]
        for number, row in ordered.iterrows()
    ]
    return Table(("trial", "score", "state", *trials.columns[2:]), page.rows(rows))
