"""Checks of parameters before a run: of each stage, beside other stages, and beside the types of cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kitlib import config
from kitlib.errors import KitError, unknown
from kitlib.stages.parameters import predict_config_after, read


def check(
    stages: Mapping[str, Mapping[str, Any]], categories: Sequence[str] = (), where: str = ""
) -> dict[str, dict[str, Any]]:
    """See that the parameters of all stages are what they may be, each for itself and beside the others.

    Args:
        stages: the parameters of each stage.
        categories: the types of cells; none where they are not known yet.
        where: as for ``read``.

    Returns:
        The same; numbers and words have the types of their fields.

    Raises:
        KitError: as ``read``, or parameters of two stages that do not go together.
    """
    found = {stage: read(stage, values, where) for stage, values in stages.items()}
    for stage, given in found.items():
        check_cell_types(given, categories, f"{where}{stage}: ")
    pretraining, training, retraining = (found[s] for s in ("02_pretrain_livecell", "03_train", "05_retrain"))
    if training.fold >= 0 and retraining.fold not in (-1, training.fold):
        raise KitError(
            f"{where}05_retrain.fold is {retraining.fold}, but 03_train trains fold {training.fold} alone; "
            "take that, or -1"
        )
    if training.weights == "" and pretraining.preset != training.preset:
        raise KitError(
            f"{where}03_train.preset is '{training.preset}', but it starts from 02's weights, made of "
            f"'{pretraining.preset}'; set both alike, or 03_train.weights"
        )
    for stage in ("04_pseudolabel", "05_retrain", "06_submit"):
        predict_config_after(training, found[stage], f"{where}{stage}.predict_config")
    return {
        stage: {name: _as_field(value, getattr(found[stage], name)) for name, value in values.items()}
        for stage, values in stages.items()
    }


def _as_field(value: Any, checked: Any) -> Any:
    return checked if isinstance(value, bool | int | float | str) else value


def check_cell_types(given: Any, categories: Sequence[str], where: str = "") -> None:
    """See that each table by type in the parameters of a stage is of types that there are.

    Args:
        given: the parameters.
        categories: the types of cells; with none of them nothing is refused.
        where: the beginning of messages.

    Raises:
        KitError: a table has another type, so that its value would be of no cell.
    """
    for name, table in _tables_by_type(given):
        for key in table:
            if categories and key not in (*categories, "default"):
                raise KitError(f"{where}{name}: {unknown('cell type', key, categories)}")


def _tables_by_type(given: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables by cell type in the parameters of a stage, and their names."""
    for name in ("score_threshold", "agreement", "min_area", "max_area", "ignore_threshold"):
        yield name, getattr(given, name, {})
    yield "augment.scale_by_type", given.augment.scale_by_type if hasattr(given, "augment") else {}
    for number, phase in enumerate(getattr(given, "phases", ())):
        yield f"phases.{number}.augment.scale_by_type", phase.augment.get("scale_by_type", {})
    predict = getattr(given, "predict_config", {})
    predict = predict if isinstance(predict, Mapping) else config.to_dict(predict)
    yield "predict_config.scales_by_type", predict.get("scales_by_type", {})
