"""Figures of a search: which trials are shown, and how."""

import pandas as pd
import pytest

from kitlib import viz

RATE, NAME = "03_train.schedule.max_lr", "03_train.optim.name"


@pytest.fixture
def trials():
    """Four trials: the second was stopped early, the third failed."""
    rows = {
        "score": [0.2, 0.1, None, 0.3],
        "state": ["complete", "pruned", "fail", "complete"],
        RATE: [1e-4, 1e-3, 2e-3, 1e-2],
        NAME: ["sgd", "adamw", "sgd", "adamw"],
    }
    return pd.DataFrame(rows, index=range(1, 5))


def dots(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return list(zip(line.get_xdata().tolist(), line.get_ydata().tolist(), strict=True))


def test_the_best_until_then_rises_with_finished_trials_alone(trials):
    (axes,) = viz.search_history(trials).axes
    assert dots(axes, "trial") == [(1, 0.2), (4, 0.3)]
    assert dots(axes, "stopped early") == [(2, 0.1)]
    assert dots(axes, "best until then") == [(1, 0.2), (4, 0.3)]
    assert [text.get_text() for text in axes.texts] == ["0.300"]


def test_each_parameter_has_a_panel_of_its_kind(trials):
    rate, name = viz.search_slices(trials, [RATE]).axes
    assert (rate.get_title(loc="left"), rate.get_xscale()) == ("schedule.max_lr", "log")
    assert dots(rate, "trial") == [(1e-4, 0.2), (1e-2, 0.3)]
    assert [text.get_text() for text in name.get_xticklabels()] == ["adamw", "sgd"]
    assert dots(name, "trial") == [(1, 0.2), (0, 0.3)]


def test_without_a_finished_trial_there_is_no_best(trials):
    (axes,) = viz.search_history(trials[trials["state"] == "pruned"]).axes
    assert not axes.texts
