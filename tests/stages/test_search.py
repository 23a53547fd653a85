"""Searches: what may be varied, and Optuna's trials with a formula in place of a training."""

import itertools
import math
import re
import shlex

import pytest

from kitlib.errors import KitError
from kitlib.stages import profiles
from kitlib.stages.search import study as studies
from kitlib.stages.search.space import Dimension, read
from kitlib.stages.search.study import Base, search

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install optuna")

RATE = "03.schedule.max_lr=1e-4..1e-2:log"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RATE, Dimension("03_train.schedule.max_lr", (1e-4, 1e-2), True)),
        ("03_train.max_iter=200..800", Dimension("03_train.max_iter", (200, 800))),
        ("03.ema_decay=0..0.5", Dimension("03_train.ema_decay", (0, 0.5))),
        ("03.optim.name=[sgd, adamw]", Dimension("03_train.optim.name", choices=("sgd", "adamw"))),
        (
            "03.augment.crop=[[64, 64], [96, 96]]",
            Dimension("03_train.augment.crop", choices=("[64, 64]", "[96, 96]")),
        ),
    ],
)
def test_forms_of_a_dimension(text, found):
    assert read([text], {}) == [found]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("03.max_iter", "names no values; write 03.schedule"),
        ("03.max_iter=800..200", "the range must begin below its end, not 800 .. 200"),
        ("03.max_iter=0..8:log", "a logarithmic range must begin above 0, not at 0"),
        ("03.max_iter=few..many", "'few' is no number"),
        ("03.max_iter=.nan..3", "'.nan' is no number"),
        ("03.max_iter=7", "is neither a range nor a list of two values or more"),
        ("03.optim.name=[sgd, sgd]", "names a value twice"),
        ("03.optim.name=[sgd", "is not valid YAML"),
        ("05.max_iter=1..9", "a search varies the parameters of 03_train"),
        ("03.folds=3..5", "scores with another folds cannot be compared"),
        ("7.max_iter=1..9", "unknown stage '7'"),
    ],
)
def test_what_is_no_dimension_is_refused(text, reason):
    with pytest.raises(KitError, match=re.escape(reason)):
        read([text], {})


def test_params_win_over_the_profile_of_which_the_rest_stays(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "search: {03.max_iter: 1..9, 03_train.schedule.max_lr: 1e-5..1e-4, 03.optim.name: [sgd, adamw]}"
    )
    plan = profiles.plan(str(tmp_path / "p.yaml"))
    found = {dimension.name: dimension.range for dimension in read([RATE], plan.search)}
    assert found == {
        "03_train.max_iter": (1, 9),
        "03_train.schedule.max_lr": (1e-4, 1e-2),
        "03_train.optim.name": None,
    }
    with pytest.raises(KitError, match="there is nothing to search"):
        read([], {})


@pytest.fixture
def base(tmp_path):
    """A search in ``tmp_path/out`` that starts from a file of weights, so that 02 does not run."""
    (tmp_path / "w.pth").touch()
    settings = (f"03.weights={tmp_path / 'w.pth'}", "03.eval_every=10")
    return Base("demo", settings, {"gpus": 0, "folds_at_once": 2}, tmp_path / "data", tmp_path / "out", False)


@pytest.fixture
def scored(monkeypatch):
    """The search has no data, and the score of a trial is its distance from a learning rate of 1e-3.

    ``scored.rates`` are the learning rates that were tried; a trial with a rate in ``scored.fails`` fails.
    """

    class Scored:
        rates, fails = [], []

        def score(self, run, trial, settings):
            rate = trial.params["03_train.schedule.max_lr"]
            self.rates.append(rate)
            if len(self.rates) in self.fails:
                raise KitError("the training has diverged; lower schedule.max_lr")
            value = 1 / (1 + abs(math.log10(rate / 1e-3)))
            studies._reports_to(trial)({"iteration": 10, "map": value / 2})
            return value

    made = Scored()
    made.rates, made.fails = [], []
    monkeypatch.setattr(studies._Search, "frames", [])
    monkeypatch.setattr(studies._Search, "_score", lambda *args: made.score(*args))
    return made


def test_a_search_finds_the_best_and_tells_how_to_run_it(base, scored):
    said = []
    page = search(base, read([RATE], {}), 12, say=said.append)
    assert len(scored.rates) == 12
    best = min(scored.rates, key=lambda rate: abs(math.log10(rate / 1e-3)))
    command = shlex.split(said[-1].splitlines()[-1])
    assert command[:2] == ["kit", "run"]
    assert f"03_train.schedule.max_lr={best}" in command
    assert command[command.index("--folds-at-once") + 1] == "2"
    settings = [value for name, value in itertools.pairwise(command) if name == "--set"]
    plan = profiles.plan("demo", settings)
    assert plan.parameters["03_train"]["schedule"]["max_lr"] == best
    assert any("stopped, as half of the earlier ones were better" in text for text in said)
    text = page.read_text()
    assert "Search in out" in text
    assert f"max_lr={best}" in text


def test_a_search_goes_on_and_counts_what_failed(base, scored):
    space, storage = read([RATE], {}), f"sqlite:///{base.out.parent / 'kept.db'}"
    scored.fails = [1]
    search(base, space, 3, storage, say=str)
    first = list(scored.rates)
    search(base, space, 5, storage, say=str)
    assert len(first) == 3
    assert len(scored.rates) == 5
    assert len(set(scored.rates)) == 5  # the second call does not repeat the choices of the first
    states = [trial.state.name for trial in optuna.load_study(study_name=None, storage=storage).trials]
    assert states[0] == "FAIL"
    with pytest.raises(KitError, match=r"kept\.db holds a search with other parameters, data or ranges"):
        search(base, read(["03.schedule.max_lr=1e-4..1e-3:log"], {}), 5, storage, say=str)


def test_an_interrupted_trial_is_tried_again(base, scored, monkeypatch):
    space = read([RATE], {})

    def interrupt(run, trial, settings):
        scored.rates.append(trial.params["03_train.schedule.max_lr"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studies._Search, "_score", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search(base, space, 2, say=str)
    search(base, space, 2, say=str)
    assert scored.rates[1] == scored.rates[0]
    assert len(scored.rates) == 3


def test_on_a_cluster_there_are_no_more_trials_than_wanted(base, scored, monkeypatch):
    monkeypatch.setattr(studies.cluster, "is_chosen", lambda: True)
    monkeypatch.setattr(studies.cluster, "size", lambda: 3)
    monkeypatch.setattr(studies.runner, "check_machine", lambda *_: None)
    search(base, read([RATE], {}), 7, say=str)
    assert len(scored.rates) == 7


def test_where_every_trial_fails_the_reason_comes_back(base, scored):
    scored.fails = [1, 2]
    with pytest.raises(KitError, match="the training has diverged"):
        search(base, read([RATE], {}), 2, say=str)


@pytest.mark.parametrize(
    ("param", "reason"),
    [
        ("03.schedule.max_rl=1e-4..1e-3", "did you mean 'max_lr'"),
        ("03.max_iter=10.5..20", "must be a whole number, not 10.5"),
        ("03.optim.momentum=0.5..1.0", "must be below 1"),
        ("03.optim.name=[sgd, adam]", "did you mean 'adamw'"),
    ],
)
def test_a_value_that_a_run_would_refuse_is_refused_before(base, param, reason):
    with pytest.raises(KitError, match=reason):
        search(base, read([param], {}), 3, say=str)
    assert not base.out.exists()


def test_a_storage_that_is_no_database_is_named(base, scored):
    base.out.mkdir()
    (base.out / "search.db").write_text("not a database")
    with pytest.raises(KitError, match=r"Optuna cannot use the storage sqlite:.*search\.db"):
        search(base, read([RATE], {}), 3, say=str)
