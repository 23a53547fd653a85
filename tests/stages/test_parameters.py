"""Parameters: what a change of each affects, rules between them, and their help as text."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib.errors import KitError
from kitlib.stages import checks, parameter_help, parameters, runner

TRAIN = "03_train"


def counted(stage: str, **values: Any) -> runner.Counted:
    given = parameters.MODELS[stage]()
    return runner.counted(stage, {**vars(given), **values})


def test_what_says_where_and_how_fast_counts_nowhere() -> None:
    everything = counted(TRAIN).everything
    assert not everything & {"data", "out", "gpus", "workers", "checkpoint_every", "memory_format"}
    assert {"fold", "seed", "optim", "amp", "predict_config", "tuning_methods"} <= everything


def test_predictions_and_tuning_come_after_a_training() -> None:
    found = counted(TRAIN)
    after = {"predict_config", "score_kinds", "tuning_methods", "ensemble_phases"}
    assert found.later - found.training == after
    after |= {"margin", "confidence", "use_retrained"}
    found = counted("05_retrain")
    assert found.everything - found.training == after


def test_a_learning_curve_leaves_the_training_and_later_stages() -> None:
    found = counted(TRAIN)
    assert found.everything - found.later == {"learning_curve"}
    assert not {"learning_curve"} & (found.training | found.resumable)


def test_evaluations_within_a_training_predict_as_well() -> None:
    assert "predict_config" in counted(TRAIN, eval_every=10).training


def test_an_interrupted_training_may_change_its_evaluations_and_where_no_rate_changes_its_length() -> None:
    found = counted(TRAIN)
    assert not found.resumable & {"eval_every", "patience"}
    assert "max_iter" in found.resumable
    assert "max_iter" not in counted(TRAIN, schedule={"name": "cosine_periodic"}).resumable
    assert counted(TRAIN, eval_every=10).resumable == found.resumable


def test_a_stage_without_a_training_depends_on_all_of_its_parameters() -> None:
    found = counted("04_pseudolabel")
    assert found.training == found.everything
    assert {"score_threshold", "predict_config"} <= found.everything


def test_later_stages_say_only_what_differs() -> None:
    """And are checked together with what 03 says: a stride needs a tile, which may be 03's."""
    stages = {stage: vars(model()) for stage, model in parameters.MODELS.items()}
    stages["06_submit"]["predict_config"] = {"stride": [64, 64]}
    with pytest.raises(KitError, match=r"06_submit\.predict_config: stride .* set tile as well"):
        checks.check(stages)
    stages[TRAIN]["predict_config"] = {"tile": [128, 128]}
    assert checks.check(stages)["06_submit"]["predict_config"] == {"stride": [64, 64]}
    assert parameters.read("06_submit", stages["06_submit"]).predict_config == {"stride": (64, 64)}


def test_numbers_and_words_get_the_types_of_their_fields() -> None:
    """As a reader of YAML 1.1 has them: off is false, 1e-3 a text."""
    stages = {stage: vars(model()) for stage, model in parameters.MODELS.items()}
    stages["05_retrain"] |= {"amp": False, "finetune_lr": "1e-3"}
    found = checks.check(stages)["05_retrain"]
    assert (found["amp"], found["finetune_lr"]) == ("off", 1e-3)


# ------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        (TRAIN, ("max_iter", "320", "length", "whole number (>= 1)", "Training iterations.")),
        (TRAIN, ("optim.momentum", "0.9", "", "number (>= 0, < 1)", 'Of "sgd".')),
        (TRAIN, ("mask_stages", "all", "training", "all or last", None)),
        (TRAIN, ("augment.crop", "[192, 192]", "", "list of 2: whole number (> 0) or null", None)),
        (TRAIN, ("model_options.roi_batch", "64", "", "whole number", None)),
        (TRAIN, ("model_options.box_fcs", "", "", "whole number", None)),
        (TRAIN, ("phases", "", "training", "keys, as below", None)),
        (
            TRAIN,
            ("phases.max_iter", "", "", "whole number (>= 1) or null", "Training iterations of the phase."),
        ),
        (TRAIN, ("workers", "2", "speed", "whole number (>= 0)", None)),
        (TRAIN, ("data", "''", "place", "text", None)),
        ("04_pseudolabel", ("max_area", "{default: null}", "results", "by type: whole number or null", None)),
        ("05_retrain", ("margin", "0.0", "after", "number", None)),
    ],
)
def test_a_row_of_help(stage: str, row: tuple[str | None, ...]) -> None:
    found = {r.name: r for r in parameter_help.rows(parameters.MODELS[stage])}[row[0]]
    assert [mine for mine, wanted in zip(found, row, strict=True) if wanted is not None] == [
        wanted for wanted in row if wanted is not None
    ]


@pytest.mark.parametrize("stage", parameters.MODELS)
def test_every_parameter_has_help_and_stands_in_columns(stage: str) -> None:
    rows = list(parameter_help.rows(parameters.MODELS[stage]))
    assert [row.name for row in rows if not row.help] == []
    lines = [line for line in parameter_help.table(stage).splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == [stage, *(row.name for row in rows)]
    place = lines[0].index("type and bounds")
    for row, line in zip(rows, lines[1:], strict=True):
        assert line[place:] == row.kind
