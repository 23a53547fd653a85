"""Whether this machine can do what a run asks of it, found out before the run's first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kitlib.errors import KitError
from kitlib.runtime import gpus
from kitlib.stages.profiles import Plan
from kitlib.train.config import TrainingSettings


def check(plan: Plan, stages: Sequence[str]) -> None:
    """See that the GPUs which the given stages ask for are there and can compute as they are asked to.

    Raises:
        KitError: too few GPUs, a driver or a build of PyTorch that cannot use them, no bfloat16, a batch that
            they cannot share evenly, or none at all for a profile that is made for GPUs.
    """
    computing = [stage for stage in stages if "gpus" in plan.parameters[stage]]
    for stage in computing:
        values = plan.parameters[stage]
        count = gpus.gpu_count(values["gpus"], _precisions(plan, stage))
        if count == 0 and values["gpus"] < 0 and plan.device == "gpu":
            raise KitError(_needs_gpus(plan, computing))
        if values["gpus"] > 0 and "images_per_batch" in values:
            _check_batch(stage, values)


def _precisions(plan: Plan, stage: str) -> dict[str, str]:
    """The mixed precision by the parameter that sets it; later stages predict as 03_train does."""
    values = plan.parameters[stage]
    found = {f"{stage}.amp": values["amp"]} if "amp" in values else {}
    if "predict_config" in values:
        owner = stage if "amp" in values["predict_config"] else "03_train"
        predict = plan.parameters[owner].get("predict_config", {})
        found[f"{owner}.predict_config.amp"] = predict.get("amp", "off")
    return found


def _check_batch(stage: str, values: Mapping[str, Any]) -> None:
    batch = {name: values[name] for name in ("images_per_batch", "accumulate") if name in values}
    try:
        TrainingSettings(**batch).images_per_process(values["gpus"])
    except KitError as error:
        raise KitError(f"{stage}: {error}") from None


def _needs_gpus(plan: Plan, stages: Sequence[str]) -> str:
    images = sum(_images(plan, stage) for stage in stages)
    return (
        f"the profile '{plan.profile}' is made for GPUs, and this machine has none that PyTorch can use "
        f"({gpus.explain(gpus.survey())}); give --gpus 0 to run it on the CPU all the same, which takes "
        f"seconds for each of the {images:,} images that it trains on, or choose --profile cpu"
    )


def _images(plan: Plan, stage: str) -> int:
    """How many images a stage's trainings go through, a repeated image counted each time."""
    values, first = plan.parameters[stage], plan.parameters["03_train"]
    each_fold = values.get("fold", 0) < 0 and first["fold"] < 0  # 05_retrain retrains those of 03_train
    trainings = first["folds"] if each_fold else 1
    return trainings * values.get("max_iter", 0) * values.get("images_per_batch", 0)
